// Handing in.

let pending = null; // a submission whose answer never came: the same content goes under the same key

const me = store?.getItem('client') || `page-${random(3)}`;
store?.setItem('client', me);
$('client').value = me;

function fault(name, words) {
  const control = $(name);
  const field = control.closest('.field');
  let place = field.querySelector('.fault');
  if (!place) {
    place = make('span', { class: 'fault', id: `${name}-fault` });
    field.append(place);
    control.setAttribute('aria-describedby', [control.getAttribute('aria-describedby'), place.id].filter(Boolean).join(' '));
  }
  text(place, words);
  control.setAttribute('aria-invalid', 'true');
  if (control.closest('details')) control.closest('details').open = true;
  control.focus();
}

function clearFaults() {
  for (const control of $('form').querySelectorAll('[aria-invalid]')) {
    control.removeAttribute('aria-invalid');
    text($(`${control.id}-fault`), '');
  }
  told('', '');
}

function told(kind, words) {
  const place = $('said');
  place.className = `said ${kind}`;
  text(place, words);
}

/** The task as the form has it; null when a field cannot be read, and says so. */
function fromForm() {
  const number = (name, words) => {
    const typed = $(name).value.trim().replace(',', '.');
    if (typed === '') return undefined;
    const value = Number(typed);
    if (Number.isFinite(value)) return value;
    fault(name, words);
    return null;
  };
  const task = { kind: $('kind').value };
  if (task.kind === 'sleep') {
    const seconds = number('seconds', 'Write a number of seconds, such as 20 or 0.5.');
    if (seconds === null) return null;
    if (seconds !== undefined) task.input = { seconds };
  } else if ($('input').value.trim()) {
    try {
      task.input = JSON.parse($('input').value);
    } catch (error) {
      fault('input', `This is not JSON: ${error.message}`);
      return null;
    }
  }
  const priority = number('priority', 'Write a whole number, such as 5 or -5.');
  const delay = priority === null ? null : number('delay', 'Write a number of seconds, such as 60.');
  if (delay === null) return null;
  if (priority !== undefined) task.priority = priority;
  if (delay !== undefined) task.delay_seconds = delay;
  if ($('client').value.trim()) task.client_id = $('client').value.trim();
  if ($('queue').value !== 'default') task.queue = $('queue').value;
  return task;
}

/** Which control shows what the server says of a field. */
function controlOf(field = '') {
  const name = field.replace(/^[/#.]+/, '').split(/[./]/)[0];
  const inputs = $('kind').value === 'sleep' ? 'seconds' : 'input';
  return { kind: 'kind', priority: 'priority', delay_seconds: 'delay', client_id: 'client', queue: 'queue', input: inputs, seconds: inputs }[name];
}

async function submit(event) {
  event.preventDefault();
  const button = $('submit');
  if (button.getAttribute('aria-disabled') === 'true') return;
  clearFaults();
  const task = fromForm();
  if (!task) return;
  const content = JSON.stringify(task);
  if (pending?.content !== content) pending = { content, key: random(16) };
  button.setAttribute('aria-disabled', 'true');
  const asked = performance.now();
  try {
    const record = await call('POST', '/v1/tasks', task, { 'idempotency-key': pending.key });
    pending = null;
    if (record.state) merge(record, asked);
    told('good', `Task ${short(record.id)} is queued.`);
    refreshSoon();
  } catch (error) {
    const control = error.field && controlOf(error.field);
    if (control) fault(control, error.message);
    else told('fault', `Not accepted: ${error.message}${error.status ? '' : '. Submitting the same again is safe: it stays one task.'}`);
    // A refusal is an answer. After anything else the task may exist, and the key keeps it one.
    if (error.status && error.status < 500) pending = null;
  }
  button.removeAttribute('aria-disabled');
}

async function offerKinds() {
  let kinds;
  try {
    ({ kinds } = await call('GET', '/v1/kinds'));
  } catch {
    return setTimeout(offerKinds, 3000);
  }
  const chosen = $('kind').value;
  kinds = kinds.map((kind) => (typeof kind === 'string' ? { name: kind } : kind));
  for (const kind of kinds) offerKind(kind.name);
  $('kind').replaceChildren(...kinds.map((kind) => make('option', { value: kind.name }, kind.name)));
  $('kind').value = kinds.some((kind) => kind.name === chosen) ? chosen : kinds[0]?.name;
  const chooseKind = () => {
    const sleeps = $('kind').value === 'sleep';
    $('seconds-field').hidden = !sleeps;
    $('input-field').hidden = sleeps;
    const words = kinds.find((kind) => kind.name === $('kind').value)?.description ?? '';
    text($('kind-hint'), words);
    $('kind-hint').hidden = !words;
  };
  $('kind').onchange = () => { clearFaults(); chooseKind(); };
  chooseKind();
}

$('form').addEventListener('submit', submit);
