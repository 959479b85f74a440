// Many tasks at once: all that the list is of, cancelled, retried or deleted. They are counted first, and a person then says yes.

const CHANGES = {
  cancel: { verb: 'Cancel', of: ['queued', 'running'], are: (many) => (many === 1 ? 'that waits or runs' : 'that wait or run'), done: 'cancelled, or asked to stop',
    warning: 'What waits is cancelled at once. What runs is asked to stop.' },
  retry: { verb: 'Retry', of: ['dead', 'cancelled'], are: (many) => (many === 1 ? 'that is dead or cancelled' : 'that are dead or cancelled'), done: 'queued again',
    warning: 'They are queued again, with all their attempts before them.' },
  delete: { verb: 'Delete', of: [...ENDED], are: (many) => (many === 1 ? 'that has ended' : 'that have ended'), done: 'deleted',
    warning: 'They are forgotten for good, and cannot be brought back.' },
};
const AT_ONCE = 500;  // tasks that one call changes: some milliseconds, in which others wait
let job = null;       // { change, filter, found, seen, changed, next, works, stopped }

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
  const mine = { change, filter, found: 0, seen: 0, changed: 0, next: null, works: true, stopped: false };
  job = mine;
  for (const id of ['bulk-said', 'bulk-fault']) text($(id), '');
  text($('bulk-title'), `${verb} all ${which(2)}?`);
  text($('bulk-words'), 'Counting them …');
  offer({ leave: 'Close' });
  $('bulk').showModal();
  try {
    do {
      const told = await send(mine, { dry_run: true });
      if (job !== mine) return;
      mine.found += told.matched;
      mine.next = told.next;
      text($('bulk-words'), `Counting them: ${count.format(mine.found)} so far …`);
    } while (mine.next);
    text($('bulk-title'), mine.found ? `${verb} ${count.format(mine.found)} ${which(mine.found)}?` : `There are no ${which(2)}`);
    text($('bulk-words'), mine.found ? warning : '');
    if (mine.found) offer({ leave: 'Leave them', go: `${verb} ${several(mine.found, 'task')}` });
  } catch (error) {
    if (job !== mine) return;
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
  Object.assign(mine, { works: true, stopped: false });
  text($('bulk-fault'), '');
  $('bulk-bar').hidden = false;
  $('bulk-bar').max = mine.found;
  offer({ leave: 'Stop' });
  let failed = null;
  try {
    do {
      const told = await send(mine, { limit: AT_ONCE });
      mine.seen += told.matched;
      mine.changed += told.changed;
      mine.next = told.next;
      $('bulk-bar').value = Math.min(mine.seen, mine.found);
      text($('bulk-said'), `${count.format(mine.changed)} of ${several(mine.found, 'task')} …`);
    } while (mine.next && !mine.stopped);
  } catch (error) {
    failed = error;
  }
  mine.works = false;
  if (job === mine) tellOutcome(mine, failed);
  // What was deleted is told by no event.
  listed = false;
  list({ ...wanted });
}

function tellOutcome({ change, changed, next }, failed) {
  const { verb, done } = CHANGES[change];
  const left = failed || next;
  $('bulk-bar').hidden = true;
  text($('bulk-said'), failed && !changed ? '' : `${several(changed, 'task was', 'tasks were')} ${done}${left ? ', and others were not' : ''}.`);
  text($('bulk-fault'), failed ? failed.message : '');
  if (!left) text($('bulk-words'), '');
  offer({ leave: 'Close', go: left && `${verb} the others` });
}

for (const button of $('changes').children) button.addEventListener('click', () => askForChange(button.dataset.change));
$('bulk-go').addEventListener('click', carryOut);
$('bulk-leave').addEventListener('click', () => leave());
$('bulk').addEventListener('cancel', (event) => { if (leave()) event.preventDefault(); });
$('bulk').addEventListener('close', () => { if (job) { job.stopped = true; job = null; } });

/** Stops what is being carried out, or closes; whether it is to stay open, to tell how far it went. */
function leave() {
  const changing = job?.works && !$('bulk-bar').hidden;
  if (changing) job.stopped = true;
  else $('bulk').close();
  return changing;
}
