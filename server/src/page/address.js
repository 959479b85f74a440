// The address: which tasks are listed and which one is open, so that a view can be kept, sent and gone back to.

const describe = ({ state, kind, client, queue }, many = 2, are = '') => [state, kind, many === 1 ? 'task' : 'tasks', are, client && `for ${client}`, queue && `in queue ${queue}`]
  .filter(Boolean).join(' ');

function writeAddress() {
  const query = new URLSearchParams();
  if (wanted.state) query.set('state', wanted.state);
  if (wanted.kind) query.set('kind', wanted.kind);
  if (wanted.client) query.set('client_id', wanted.client);
  if (wanted.queue) query.set('queue', wanted.queue);
  if (shown) query.set('task', shown);
  const written = query.size ? `?${query}` : location.pathname;
  if (`${location.pathname}${query.size ? `?${query}` : ''}` !== location.pathname + location.search) window.history.pushState(null, '', written);
}

/** Shows what the address says: at first, and as somebody goes back or forth. */
function readAddress() {
  const query = new URLSearchParams(location.search);
  const state = STATES.has(query.get('state')) ? query.get('state') : '';
  list({ state, kind: query.get('kind') ?? '', client: query.get('client_id') ?? '', queue: query.get('queue') ?? '' });
  const task = query.get('task');
  if (task && UUID.test(task)) { if (task !== shown) open(task, false); }
  else if ($('details').open) { shown = null; $('details').close(); }
}

/** Lists other tasks. The address is written by whoever was asked by a person. */
function list(others) {
  if (Object.keys(others).every((name) => wanted[name] === others[name]) && listed) return;
  wanted = others;
  turn += 1;
  listed = false;
  cursor = null;
  text($('tasks-heading'), filtered() ? `Newest ${describe(wanted)}` : 'Newest tasks');
  for (const choice of $('filter').querySelectorAll('input')) choice.checked = choice.value === wanted.state;
  offerKind(wanted.kind);
  $('search-kind').value = wanted.kind;
  $('search-words').value = wanted.client;
  offerQueues();
  offerChanges();
  text($('search-fault'), '');
  room = LIVE;
  order = [];
  for (const known of [tasks, rows, dirty]) known.clear();
  $('rows').replaceChildren();
  text($('empty'), 'Asking for the tasks …');
  summarise();
  refresh();
}

/** A kind that only other pods know, or that an older version had, can be listed too. */
function offerKind(name) {
  const kinds = $('search-kind');
  if (name && ![...kinds.options].some((option) => option.value === name)) kinds.append(make('option', { value: name }, name));
}

function show(changes) {
  list({ ...wanted, ...changes });
  writeAddress();
}

$('filter').addEventListener('change', (event) => show({ state: event.target.value }));
$('search-kind').addEventListener('change', () => show({ kind: $('search-kind').value }));
$('search-queue').addEventListener('change', () => show({ queue: $('search-queue').value }));
$('search').addEventListener('submit', (event) => {
  event.preventDefault();
  const typed = $('search-words').value.trim();
  if (!UUID.test(typed)) return show({ client: typed });
  $('search-words').value = wanted.client;
  open(typed.toLowerCase());
});
for (const link of document.querySelectorAll('[data-show]')) {
  link.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab or window of its own
    event.preventDefault();
    show({ state: link.dataset.show, kind: '', client: '', queue: '' });
    $('tasks-heading').focus();
  });
}
addEventListener('popstate', readAddress);
