// Looking at the queue.

let looking = false;
let again = 0;
let turn = 0; // a filter that changes makes answers to the one before it stale

const address = (more) => {
  const query = new URLSearchParams({ limit: String(more ? PAGE : Math.max(PAGE, Math.min(order.length, 100))) });
  if (wanted.state) query.set('state', wanted.state);
  if (wanted.kind) query.set('kind', wanted.kind);
  if (wanted.client) query.set('client_id', wanted.client);
  if (wanted.queue) query.set('queue', wanted.queue);
  if (more) query.set('cursor', more);
  return `/v1/tasks?${query}`;
};

async function refresh() {
  if (looking) return;
  looking = true;
  clearTimeout(again);
  lookAtQueues();
  const asked = performance.now();
  const mine = turn;
  let wait = CALM;
  try {
    const [page, counts] = await Promise.all([call('GET', address()), call('GET', '/v1/queue')]);
    showCounts(counts);
    sample(counts);
    if (counts.queued + counts.running > 0) wait = BUSY;
    if (mine === turn) {
      reconcile(page, asked);
      text($('list-fault'), '');
    }
  } catch (error) {
    wait = BUSY;
    text($('list-fault'), `The list may be old: ${error.message}`);
  }
  looking = false;
  again = setTimeout(refresh, mine === turn ? wait : 0);
}

/** Many events make one look. */
let soon = 0;
function refreshSoon() {
  if (soon) return;
  soon = setTimeout(() => { soon = 0; if (looking) refreshSoon(); else if (!document.hidden) refresh(); }, EAGER);
}

function reconcile(page, asked) {
  const last = page.next ?? ''; // it may be below the last that matches
  const there = new Set(page.tasks.map((task) => task.id));
  for (const record of page.tasks) merge(record, asked);
  for (const id of order) {
    if (id < last) break;
    // It is gone, or is no longer in the state that was asked for.
    if (!there.has(id) && !(tasks.get(id)?.touched > asked)) { tasks.delete(id); mark(id); }
  }
  if (!listed || order.length <= page.tasks.length) cursor = page.next;
  const first = !listed;
  listed = true;
  if (first) flush(true); else summarise();
}

async function loadMore() {
  const button = $('more');
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  const asked = performance.now();
  const mine = turn;
  try {
    const page = await call('GET', address(cursor));
    if (mine === turn) {
      for (const record of page.tasks) merge(record, asked);
      cursor = page.next;
      room = Math.min(MOST, Math.max(room, order.length + PAGE));
      flush(true);
      say(`${several(page.tasks.length, 'more task')} loaded.`);
    }
  } catch (error) {
    text($('list-fault'), `Cannot load more: ${error.message}`);
  }
  button.removeAttribute('aria-disabled');
}

function showCounts(counts) {
  for (const name of ['queued', 'delayed', 'running', 'dead']) text($(`count-${name}`), count.format(counts[name]));
  text($('capacity'), counts.capacity ? `of ${count.format(counts.capacity)}` : '');
  document.title = counts.running + counts.queued > 0 ? `Tasks: ${counts.running} running, ${counts.queued} queued` : 'Tasks';
  if (typeof counts.shared === 'boolean') {
    shared = counts.shared;
    offerWhole();
    text($('queue-words'), counts.shared ? 'One queue, shared by all pods.'
      : inPod ? 'Each pod has a queue of its own: behind a Service with several pods this list is that of the pod that answers.'
      : 'The queue is this server’s own.');
  }
}

$('more').addEventListener('click', loadMore);
$('waiting').addEventListener('click', () => flush(true));
for (const left of ['pointerleave', 'focusout']) {
  $('rows').addEventListener(left, () => { if (dirty.size) frame ||= requestAnimationFrame(flush); });
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) { refresh(); connectNow(); } });
