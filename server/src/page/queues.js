// The queues: what waits and runs in each, what it may take, and its pause.

let queues = [];              // as they were told last, by name
const queueRows = new Map();  // by name
let lookingAtQueues = false;
let inPod = null;             // whether the server is in a pod; null until it said so
let shared = null;            // whether pods share the queue; null until the server said so
let paused = 0;               // pauses and resumptions so far: an answer that was asked for before the last of them is stale

/** Whether all calls meet one queue. Where each pod has its own, the next call may meet that of another pod than the one looked at. */
const oneQueue = () => shared === true || (shared === false && inPod === false);

/** Offers what is done to a whole queue only where it is done to the one that is shown, and else says why not. */
function offerWhole() {
  const apart = shared === false && inPod === true;
  for (const id of ['changes-apart', 'queues-apart']) $(id).hidden = !apart;
  if (!oneQueue() && $('bulk').open) $('bulk').close();
  offerChanges();
  for (const { button } of queueRows.values()) button.hidden = !oneQueue();
}

async function lookAtQueues() {
  if (lookingAtQueues) return;
  lookingAtQueues = true;
  const before = paused;
  try {
    const told = await call('GET', '/v1/queues');
    if (before === paused) showQueues(told.queues);
    text($('queues-said'), '');
  } catch (error) {
    text($('queues-said'), `The figures may be old: ${error.message}`);
  }
  lookingAtQueues = false;
}

function showQueues(told) {
  queues = told;
  const names = new Set(queues.map(({ name }) => name));
  for (const [name, row] of queueRows) if (!names.has(name)) { row.element.remove(); queueRows.delete(name); }
  let before = null;
  for (const queue of queues) {
    const row = queueRows.get(queue.name) ?? newQueueRow(queue.name);
    if ((before ? before.nextElementSibling : $('queues').firstElementChild) !== row.element) {
      if (before) before.after(row.element); else $('queues').prepend(row.element);
    }
    before = row.element;
    paintQueue(row, queue);
  }
  offerQueues();
}

function newQueueRow(name) {
  const cell = (title, look) => {
    const first = make('span');
    const second = make('small');
    return { first, second, element: make('div', { role: 'cell', 'data-name': title, class: look ?? '' }, first, second) };
  };
  const row = { waiting: cell('Waiting'), running: cell('Running'), concurrency: cell('Concurrency'), rate: cell('Rate'), paused: cell('Paused', 'paused'),
    button: make('button', { type: 'button', class: 'slim' }) };
  const only = make('button', { type: 'button', class: 'name', title: `List the tasks of ${name}` }, name);
  row.element = make('div', { class: 'queue', role: 'row', 'data-queue': name }, make('div', { role: 'cell', class: 'of' }, only),
    row.waiting.element, row.running.element, row.concurrency.element, row.rate.element, row.paused.element,
    make('div', { role: 'cell', class: 'act' }, row.button));
  only.addEventListener('click', () => { show({ queue: name }); $('tasks-heading').focus(); });
  row.button.addEventListener('click', () => pause(name, row.button));
  queueRows.set(name, row);
  return row;
}

function paintQueue(row, { queued, delayed, running, oldest_seconds: oldest, paused: isPaused, settings, name }) {
  const tell = (cell, first, ...second) => { text(cell.first, first); text(cell.second, second.filter(Boolean).join(', ')); };
  tell(row.waiting, count.format(queued), queued > 0 && `oldest ${counting(oldest * 1000)}`, delayed > 0 && `${count.format(delayed)} delayed`);
  tell(row.running, count.format(running));
  const bound = (value) => (value ? count.format(value) : 'no bound');
  tell(row.concurrency, bound(settings.concurrency), settings.concurrency_per_key && `${count.format(settings.concurrency_per_key)} a key`);
  const rate = settings.rate_per_second;
  tell(row.rate, rate ? `${count.format(rate)} a second` : 'no bound', rate && `${count.format(settings.burst)} at once`);
  tell(row.paused, isPaused ? 'yes' : 'no');
  row.element.toggleAttribute('data-paused', isPaused);
  text(row.button, isPaused ? 'Resume' : 'Pause');
  row.button.hidden = !oneQueue();
  row.button.setAttribute('aria-label', `${isPaused ? 'Resume' : 'Pause'} queue ${name}`);
}

async function pause(name, button) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  const verb = queues.find((queue) => queue.name === name)?.paused ? 'resume' : 'pause';
  try {
    const queue = await call('POST', `/v1/queues/${encodeURIComponent(name)}/${verb}`);
    paused += 1;
    showQueues(queues.map((other) => (other.name === name ? queue : other)));
    text($('queues-fault'), '');
    say(verb === 'pause' ? `Queue ${name} is paused: nothing of it is started, and what runs goes on.` : `Queue ${name} is not paused any more.`);
    refreshSoon();
  } catch (error) {
    text($('queues-fault'), `Cannot ${verb} queue ${name}: ${error.message}`);
  }
  button.removeAttribute('aria-disabled');
}

/** Where a queue can be chosen. One that was chosen and is not there stays to be seen. */
function offerQueues() {
  const names = queues.map(({ name }) => name);
  const choose = (select, chosen, first) => {
    const offered = [...new Set([...names, chosen].filter(Boolean))];
    const options = first ? [['', first], ...offered.map((name) => [name, name])] : offered.map((name) => [name, name]);
    const same = options.length === select.options.length && options.every(([value], at) => select.options[at].value === value);
    if (!same) select.replaceChildren(...options.map(([value, words]) => make('option', { value }, words)));
    select.value = chosen;
  };
  choose($('search-queue'), wanted.queue, 'All queues');
  choose($('queue'), $('queue').value || 'default');
  $('search-queue-field').hidden = names.length < 2 && !wanted.queue;
}
