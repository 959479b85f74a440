// One row.

function newRow(id) {
  const row = { id, icon: icon('queued'), word: make('span'), kind: make('span'), extra: make('span', { class: 'extra' }), error: make('span', { class: 'error' }),
    tries: make('span', { class: 'tries', role: 'cell' }), far: make('div', { class: 'far', role: 'cell' }), bar: make('progress', { max: '1' }), note: make('span'),
    long: make('span'), short: make('span', { class: 'soft small' }), button: make('button', { type: 'button', class: 'slim' }) };
  row.name = make('button', { type: 'button', class: 'name', title: id }, row.kind, make('span', { class: 'mono' }, short(id)));
  row.far.append(row.bar, row.note);
  row.element = make('div', { class: 'row', role: 'row', 'data-id': id },
    make('div', { class: 'state', role: 'cell' }, row.icon, row.word),
    make('div', { class: 'what', role: 'cell' }, row.name, row.extra, row.error),
    row.tries, row.far,
    make('div', { class: 'time', role: 'cell' }, row.long, row.short),
    make('div', { class: 'act', role: 'cell' }, row.button));
  row.name.addEventListener('click', () => open(id));
  row.button.addEventListener('click', () => act(id, row.button));
  return row;
}

function paint(row, task) {
  const state = waitsForItsTime(task) ? 'delayed' : task.state;
  if (row.state !== state) {
    row.state = state;
    row.element.dataset.state = state;
    row.icon.firstChild.setAttribute('href', `#i-${state}`);
  }
  text(row.word, task.stopping && task.state === 'running' ? 'stopping' : state);
  text(row.kind, task.kind ?? '…');
  const extra = [task.client && `for ${task.client}`, task.queue && task.queue !== 'default' && `in ${task.queue}`, task.priority && `priority ${task.priority}`].filter(Boolean);
  text(row.extra, extra.join(', '));
  text(row.error, !task.error || task.state === 'succeeded' ? '' : task.state === 'dead' ? task.error : `last attempt: ${task.error}`);
  text(row.tries, task.attempt ? (task.attempts ? `${task.attempt} of ${task.attempts}` : `${task.attempt}`) : '–');
  paintProgress(row, task);
  paintTime(row, task);
  const action = actionOf(task);
  if (row.action !== action) {
    row.action = action;
    if (!action && document.activeElement === row.button) row.name.focus();
    row.button.hidden = !action;
    if (action) {
      text(row.button, action);
      row.button.setAttribute('aria-label', `${action} task ${short(row.id)}`);
    }
  }
}

const actionOf = (task) => {
  if (!ENDED.has(task.state)) return task.stopping ? '' : 'Cancel';
  return task.state === 'succeeded' ? '' : 'Retry';
};

/** Handlers say how far they are in JSON of their own: a share, a part of a whole, or words. */
function share(progress) {
  if (typeof progress === 'number') return progress > 1 ? progress / 100 : progress;
  if (!progress || typeof progress !== 'object') return null;
  const part = (done, total) => (typeof done === 'number' && total > 0 ? done / total : null);
  if (typeof progress.percent === 'number') return progress.percent / 100;
  if (typeof progress.fraction === 'number') return progress.fraction;
  return part(progress.done, progress.total);
}

function paintProgress(row, task) {
  const value = task.state === 'succeeded' ? 1 : share(task.progress);
  const visible = task.state === 'running' && value !== null;
  row.bar.hidden = !visible;
  let words = '';
  if (visible) {
    const bounded = Math.min(1, Math.max(0, value));
    row.bar.value = bounded;
    row.bar.setAttribute('aria-label', `Progress of task ${short(row.id)}`);
    words = `${Math.round(bounded * 100)} %`;
  } else if (task.progress !== null && task.progress !== undefined && task.state === 'running') {
    words = typeof task.progress === 'string' ? task.progress : JSON.stringify(task.progress);
  }
  text(row.note, words);
  row.far.hidden = words === '' && narrow.matches;
}
const narrow = matchMedia('(max-width: 54rem)');
narrow.addEventListener('change', () => { for (const id of order) mark(id); });

function paintTime(row, task) {
  let long = '', second = '';
  if (task.state === 'queued') {
    long = waitsForItsTime(task) ? `in ${counting(task.due - now() + 999)}` : `waiting ${counting(now() - Math.max(task.due ?? 0, task.created))}`;
  } else if (task.state === 'running') {
    long = task.started ? `running ${counting(now() - task.started)}` : 'running';
    if (task.started && task.attempt < 2) second = `waited ${span(task.started - Math.max(task.due ?? 0, task.created))}`;
  } else {
    long = task.started && task.ended ? `ran ${span(task.ended - task.started)}` : 'never ran';
    second = task.ended ? time(task.ended) : '';
  }
  text(row.long, long);
  text(row.short, second);
}

setInterval(() => {
  if (document.hidden) return;
  for (const id of order) {
    const task = tasks.get(id);
    if (!task || ENDED.has(task.state)) continue;
    // A delay that is over makes another state of it.
    if (rows.get(id).state === 'delayed' && !waitsForItsTime(task)) mark(id); else paintTime(rows.get(id), task);
  }
}, 1000);

async function act(id, button) {
  const task = tasks.get(id) ?? { state: 'running' };
  const verb = ENDED.has(task.state) ? 'retry' : 'cancel';
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  const asked = performance.now();
  const fault = $('details').open ? $('details-fault') : $('list-fault');
  try {
    const record = await call('POST', `/v1/tasks/${id}/${verb}`);
    text(fault, '');
    merge(record, asked);
    say(verb === 'retry' ? `Task ${short(id)} is queued again.` : record.state === 'cancelled' ? `Task ${short(id)} is cancelled.` : `Task ${short(id)} was asked to stop.`);
  } catch (error) {
    text(fault, `Cannot ${verb} task ${short(id)}: ${error.message}`);
    refreshSoon();
  }
  button.removeAttribute('aria-disabled');
}
