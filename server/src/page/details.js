// One task, in full.

let shown = null;
let inquiring = false;

/** `remember`: the address names the task, so that it can be sent to somebody and the back button closes it. */
function open(id, remember = true) {
  shown = id;
  if (remember) writeAddress();
  text($('details-fault'), '');
  text($('details-title'), `Task ${short(id)}`);
  $('facts').replaceChildren();
  $('texts').replaceChildren();
  $('details-act').hidden = true;
  // One that is open already shows another task.
  if (!$('details').open) $('details').showModal();
  look();
}

async function look() {
  if (inquiring || !shown) return;
  inquiring = true;
  const id = shown;
  try {
    const record = await call('GET', `/v1/tasks/${id}`);
    if (id === shown) showDetails(record);
  } catch (error) {
    text($('details-fault'), error.status === 404 ? 'The task is no longer remembered.' : `Cannot read the task: ${error.message}`);
  }
  inquiring = false;
  if (shown && id !== shown) look();
}

function showDetails(record) {
  const task = fromRecord(record);
  text($('details-title'), `${task.kind} ${short(task.id)}`);
  const facts = [
    ['State', waitsForItsTime(task) ? 'queued, its time has not come' : task.stopping && task.state === 'running' ? 'running, asked to stop' : task.state],
    ['Id', task.id], ['Client', task.client], ['Queue', record.queue], ['Key', record.concurrency_key], ['Priority', task.priority], ['Attempt', `${task.attempt} of ${task.attempts}`],
    ['Time-out', record.timeout_seconds ? `${record.timeout_seconds} s an attempt` : null],
    ['Handed in', moment(task.created)], ['Due', task.due > task.created ? moment(task.due) : null], ['Started', moment(task.started)], ['Ended', moment(task.ended)],
  ].filter(([, value]) => value !== null && value !== undefined && value !== '');
  $('facts').replaceChildren(...facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', name === 'Id' ? { class: 'mono' } : {}, String(value))]));
  const texts = [['Error', record.error], ['Input', record.input], ['Progress', record.progress], ['Output', record.output]];
  const words = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
  $('texts').replaceChildren(...texts.filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => make('section', {}, make('h3', {}, name), make('pre', { tabindex: '0' }, words(value)))));
  $('texts').append(...history(record.attempts ?? []));
  const action = actionOf(task);
  const button = $('details-act');
  if (!action && document.activeElement === button) $('details-close').focus();
  button.hidden = !action;
  text(button, action ? `${action} this task` : '');
}

/** A table of the attempts, where there is more to tell than the facts do. */
function history(attempts) {
  if (attempts.length === 0) return [];
  const cells = (...words) => make('tr', {}, ...words.map((word) => make('td', {}, word)));
  const heads = make('tr', {}, ...['Attempt', 'Pod', 'Started', 'Took', 'Error'].map((word) => make('th', { scope: 'col' }, word)));
  const lines = attempts.map(({ attempt, pod, started_at, ended_at, error }) => cells(String(attempt), pod ?? '–', moment(at(started_at)),
    ended_at ? span(at(ended_at) - at(started_at)) : '–', error ?? ''));
  return [make('section', {}, make('h3', {}, 'Attempts'),
    make('div', { class: 'wide', tabindex: '0' }, make('table', { id: 'attempts' }, make('thead', {}, heads), make('tbody', {}, ...lines))))];
}

$('details-close').addEventListener('click', () => $('details').close());
$('details').addEventListener('close', () => {
  const asked = shown;
  shown = null;
  if (asked) writeAddress();
});
$('details').addEventListener('click', (event) => { if (event.target === $('details')) $('details').close(); });
$('details-act').addEventListener('click', async () => {
  const id = shown;
  await act(id, $('details-act'));
  if (id === shown) look();
});
