// Many tasks at once: all that the list is of, cancelled, retried or deleted. They are counted first, and a person then says yes.

const HAVE_CHANGED = (many) => (many === 1 ? 'it has changed' : 'they have changed');
const CHANGES = {
  cancel: { verb: 'Cancel', of: ['queued', 'running'], are: (many) => (many === 1 ? 'that waits or runs' : 'that wait or run'), done: 'cancelled, or asked to stop', why: HAVE_CHANGED,
    warning: 'What waits is cancelled at once. What runs is asked to stop.' },
  retry: { verb: 'Retry', of: ['dead', 'cancelled'], are: (many) => (many === 1 ? 'that is dead or cancelled' : 'that are dead or cancelled'), done: 'queued again',
    why: (many) => `${many === 1 ? 'its' : 'their'} queue is gone, or ${HAVE_CHANGED(many)}`,
    warning: 'They are queued again, with all their attempts before them.' },
  delete: { verb: 'Delete', of: [...ENDED], are: (many) => (many === 1 ? 'that has ended' : 'that have ended'), done: 'deleted', why: HAVE_CHANGED,
    warning: 'They are forgotten for good, and cannot be brought back.' },
};
const AT_ONCE = 500;  // tasks that one call changes: some milliseconds, in which others wait
// What the open dialog is about: { change, filter, found, seen, changed, next, works, changing, stopped, unsure, others }
let job = null;

/** Only what can be done to tasks in the state that is listed. */
function offerChanges() {
  $('changes').hidden = !oneQueue();
  for (const button of $('changes').children) {
    const { of } = CHANGES[button.dataset.change];
    button.hidden = !oneQueue() || (wanted.state !== '' && !of.includes(wanted.state));
  }
}

async function askForChange(change) {
  const { of, are, verb, warning } = CHANGES[change];
  const { state, kind, client, queue } = wanted;
  const filter = { state: state ? [state] : of, ...(kind && { kind }), ...(client && { client_id: client }), ...(queue && { queue }) };
  const which = (many) => describe({ state, kind, client, queue }, many, state ? '' : are(many));
  const mine = { change, filter, found: 0, seen: 0, changed: 0, next: null, works: true, changing: false, stopped: false, unsure: false, others: false };
  beginJob(mine);
  for (const id of ['bulk-said', 'bulk-fault']) text($(id), '');
  text($('bulk-title'), `${verb} all ${which(2)}?`);
  text($('bulk-words'), 'Counting them …');
  offer({ leave: 'Close' });
  if (!$('bulk').open) $('bulk').showModal();
  try {
    do {
      const told = await send(mine, { dry_run: true });
      if (mine.stopped) return;
      mine.found += told.matched;
      mine.next = told.next;
      text($('bulk-words'), `Counting them: ${count.format(mine.found)} so far …`);
    } while (mine.next);
    text($('bulk-title'), mine.found ? `${verb} ${count.format(mine.found)} ${which(mine.found)}?` : `There are no ${which(2)}`);
    text($('bulk-words'), mine.found ? warning : '');
    if (mine.found) offer({ leave: 'Leave them', go: `${verb} ${several(mine.found, 'task')}` });
  } catch (error) {
    if (mine.stopped) return;
    text($('bulk-words'), '');
    text($('bulk-fault'), `Cannot count them: ${error.message}`);
  }
  mine.works = false;
}

const send = ({ change, filter, next }, more) => call('POST', `/v1/bulk/${change}`, { filter, ...(next && { cursor: next }), ...more });

/** What can be pressed. */
function offer({ leave, go }) {
  text($('bulk-leave'), leave);
  $('bulk-go').hidden = !go;
  if (go) text($('bulk-go'), go);
}

async function carryOut() {
  const mine = job;
  if (!mine || mine.works) return;
  if (mine.unsure || mine.others) return askForChange(mine.change);
  Object.assign(mine, { works: true, changing: true, stopped: false });
  text($('bulk-fault'), '');
  $('bulk-bar').hidden = false;
  $('bulk-bar').max = mine.found;
  offer({ leave: 'Stop' });
  let failed = null;
  try {
    do {
      // Never more than a person said yes to, whatever came since they were counted.
      const told = await send(mine, { limit: Math.min(AT_ONCE, mine.found - mine.seen) });
      mine.seen += told.matched;
      mine.changed += told.changed;
      mine.next = told.next;
      if (job !== mine) break;
      $('bulk-bar').value = mine.seen;
      text($('bulk-said'), `${count.format(mine.changed)} of ${several(mine.found, 'task')} …`);
    } while (mine.next && mine.seen < mine.found && !mine.stopped);
    if (mine.seen >= mine.found) mine.others = await areOthers(mine);
  } catch (error) {
    failed = error;
    // A call that was refused changed nothing; of others nobody knows, and a repetition could change others instead.
    mine.unsure = !(error.status < 500);
  }
  Object.assign(mine, { works: false, changing: false });
  if (job === mine) tellOutcome(mine, failed);
  // What was deleted is told by no event.
  listed = false;
  list({ ...wanted });
}

/** Whether more fit than were asked for. A `next` alone may only say that not all were looked at. */
async function areOthers(mine) {
  while (mine.next && !mine.stopped) {
    const told = await send(mine, { dry_run: true }).catch(() => null); // what was asked for is done all the same
    if (!told || told.matched) return Boolean(told);
    mine.next = told.next;
  }
  return false;
}

function tellOutcome({ change, found, seen, changed, next, unsure, others }, failed) {
  const { verb, done, why } = CHANGES[change];
  const early = failed || (next && seen < found);
  const left = (early ? seen : found) - changed;
  const rest = unsure ? ', and perhaps others' : early ? ', and others were not' : '';
  const words = [`${several(changed, 'task was', 'tasks were')} ${done}${rest}.`, left > 0 && `${several(left, 'was', 'were')} left: ${why(left)}.`, others && 'There are others now.'];
  $('bulk-bar').hidden = true;
  text($('bulk-said'), failed && !changed ? '' : words.filter(Boolean).join(' '));
  text($('bulk-fault'), failed ? failed.message : '');
  if (!early) text($('bulk-words'), '');
  offer({ leave: 'Close', go: unsure || others ? 'Count them again' : early && `${verb} the others` });
}

for (const button of $('changes').children) button.addEventListener('click', () => askForChange(button.dataset.change));
$('bulk-go').addEventListener('click', carryOut);
$('bulk-leave').addEventListener('click', () => leave());
$('bulk').addEventListener('cancel', (event) => { if (leave()) event.preventDefault(); });
$('bulk').addEventListener('close', () => {
  // It comes a moment after the dialog closed, which may be open again with another job.
  if (!$('bulk').open) beginJob(null);
});

/** What was being done before goes no further. */
function beginJob(next) {
  if (job) job.stopped = true;
  job = next;
  $('bulk-bar').hidden = true;
}

/** Stops what is being carried out, or closes; whether it is to stay open, to tell how far it went. */
function leave() {
  const changing = job?.changing ?? false;
  if (changing) job.stopped = true;
  else $('bulk').close();
  return changing;
}
