// The tasks: what is known, and what is on screen.

const tasks = new Map();   // by id; only what is, or should be, on screen
const rows = new Map();    // by id
let order = [];            // ids on screen, the newest first (ids are in the order of their coming)
let dirty = new Set();
let frame = 0;
let wanted = { state: '', kind: '', client: '', queue: '' }; // which tasks are listed
let room = LIVE;
let cursor = null;         // the last task that was looked at: the next page begins below it
let listed = false;

// A version 7 uuid begins with its time in milliseconds.
const born = (id) => parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
const at = (value) => (value ? Date.parse(value) : null);

function fromRecord(record) {
  return {
    id: record.id, kind: record.kind, state: record.state, client: record.client_id, queue: record.queue, priority: record.priority,
    attempt: record.attempt, attempts: record.max_attempts, progress: record.progress, error: record.error,
    created: at(record.created_at), due: at(record.due_at), started: at(record.started_at), ended: at(record.ended_at),
    stopping: record.cancel_requested,
  };
}

const matches = (task) => (!wanted.state || task.state === wanted.state) && (!wanted.kind || task.kind === wanted.kind)
  && (!wanted.client || task.client === wanted.client) && (!wanted.queue || task.queue === wanted.queue);
const filtered = () => Boolean(wanted.state || wanted.kind || wanted.client || wanted.queue);
const waitsForItsTime = (task) => task.state === 'queued' && task.due > now();

function mark(id) {
  dirty.add(id);
  if (dirty.size > 2 * MOST) forget();
  frame ||= requestAnimationFrame(flush);
}

/** Nothing is painted in a tab that nobody sees, or while a hand is over the list: what has no row is asked for again by the next look. */
function forget() {
  for (const id of dirty) if (!rows.has(id)) { dirty.delete(id); tasks.delete(id); }
}

/** What an event says; what it leaves out stays as it was. */
function learn(id, facts) {
  let task = tasks.get(id);
  if (!task) {
    if (cursor && id < cursor) return; // below what is loaded
    task = { id, attempt: 0, created: born(id), due: born(id) };
    tasks.set(id, task);
  }
  Object.assign(task, facts, { touched: performance.now() });
  mark(id);
}

/** What a look at the queue says. It may be older than an event that came meanwhile. */
function merge(record, asked) {
  const fresh = fromRecord(record);
  const known = tasks.get(fresh.id);
  if (known?.touched > asked) {
    const step = (task) => task.attempt * 4 + RANK[task.state];
    if (step(fresh) < step(known)) {
      const { state, attempt, started, ended, progress, error, ...rest } = fresh;
      Object.assign(known, rest);
      return mark(fresh.id);
    }
  }
  tasks.set(fresh.id, { ...known, ...fresh });
  mark(fresh.id);
}

/** While somebody points at the list or has the focus in it, rows neither come nor go under their hand. */
const mouse = matchMedia('(hover: hover)');
const held = () => (mouse.matches && $('rows').matches(':hover')) || $('rows').matches(':focus-within');

function flush(force) {
  frame = 0;
  const hold = force !== true && held();
  const later = new Set();
  let coming = 0;
  for (const id of dirty) {
    const task = tasks.get(id);
    const row = rows.get(id);
    const fits = task && matches(task);
    if (row && task && (fits || hold)) paint(row, task);
    if (Boolean(fits) !== Boolean(row)) {
      if (hold) { later.add(id); coming += fits ? 1 : 0; }
      else if (fits) insert(task);
      else remove(id);
    }
    if (task && !fits && !rows.has(id) && !later.has(id)) tasks.delete(id);
    if (id === shown) look();
  }
  dirty = later;
  if (!hold) trim();
  $('waiting').hidden = later.size === 0;
  text($('waiting'), coming ? `Show ${several(coming, 'new task')}` : `Show ${several(later.size, 'change')}`);
  summarise();
}

function place(id) {
  let low = 0, high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle] > id) low = middle + 1; else high = middle;
  }
  return low;
}

function insert(task) {
  const index = place(task.id);
  const row = newRow(task.id);
  rows.set(task.id, row);
  paint(row, task);
  if (listed && index < PAGE) row.element.classList.add('fresh');
  $('rows').insertBefore(row.element, index < order.length ? rows.get(order[index]).element : null);
  order.splice(index, 0, task.id);
}

function remove(id) {
  const row = rows.get(id);
  const index = order.indexOf(id);
  if (row.element.contains(document.activeElement)) {
    const next = rows.get(order[index + 1] ?? order[index - 1]);
    (next?.name ?? $('tasks-heading')).focus();
  }
  row.element.remove();
  rows.delete(id);
  order.splice(index, 1);
}

function trim() {
  if (order.length <= room) return;
  for (const id of order.slice(room)) { remove(id); tasks.delete(id); }
  cursor = order[order.length - 1];
}

function summarise() {
  const none = order.length === 0 && listed;
  $('empty').hidden = listed && !none;
  if (none) text($('empty'), filtered() ? `No ${describe(wanted)}${cursor ? ' among those that were looked through: there are more' : ''}.` : 'No tasks yet. Submit one: it shows up here at once.');
  const full = order.length >= MOST;
  $('more').hidden = !cursor || full;
  text($('shown'), order.length === 0 ? '' : `${several(order.length, 'task')} shown${cursor ? (full ? ', the most this page keeps: filter to see others' : ', there are more') : ''}`);
}
