// The connection.

let socket = null;
let token = null;         // where to go on: the last event seen, as the server names it
let number = null;        // its number in that stream
let caughtUp = 0;         // up to this number, events are from before the page was opened
let stream = null;
let gaps = 0;
let pod = null;
let lostAt = 0;           // when the connection before this one ended
let tries = 0;
let retry = 0;
let handover = null;      // { from, closed }
let comeBack = null;      // ms: when a pod that goes asks to come back, so that not all do at once

const numberOf = (token) => Number(token.slice(token.lastIndexOf('.') + 1));

function link(state, words) {
  document.body.dataset.link = state;
  text($('lamp'), words);
}

function connect() {
  clearTimeout(retry);
  retry = 0;
  $('reconnect').hidden = true;
  const query = new URLSearchParams({ format: 'json' });
  if (token) query.set('after', token); else query.set('last', String(LOG));
  const url = new URL(`/ws/${encodeURIComponent(me)}?${query}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  // A browser sets no header here, so the token goes along as a word that the server does not choose.
  const mine = new WebSocket(url, key ? ['graceful.v1', `bearer.${key}`] : []);
  socket = mine;
  mine.onmessage = ({ data }) => { if (socket === mine) receive(data); };
  mine.onclose = ({ code, reason }) => { if (socket === mine) closed(code, reason); };
}

function connectNow() {
  if (!socket) { tries = 0; connect(); }
}

function closed(code, reason) {
  socket = null;
  const wasLive = document.body.dataset.link !== 'away';
  if (wasLive) {
    lostAt = Date.now();
    log(`Closed by ${pod ?? 'the server'}: ${code}${reason ? `, ${reason}` : ''}`, code === 1012 ? 'big' : 'fault');
    if (handover) {
      step('finish');
      step('closed', `${code}${reason ? ` ${reason}` : ''}`);
      text($('handover-words'), 'Looking for another pod.');
    }
  }
  tries += 1;
  // At once or as told, but not all clients in the same instant; then slower and slower.
  const wait = comeBack ?? Math.min(10_000, 300 * 2 ** (tries - 1)) * (0.5 + Math.random() / 2);
  comeBack = null;
  link('away', tries > 3 ? `Not connected, next try in ${Math.ceil(wait / 1000)} s` : 'Reconnecting');
  if (wasLive && !handover) say('Connection lost. Reconnecting.');
  $('reconnect').hidden = tries <= 3;
  retry = setTimeout(connect, wait);
}

function receive(data) {
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    return; // not for us
  }
  switch (event.type) {
    case 'hello': return hello(event);
    case 'drain': return drain(event.state);
    case 'task.succeeded': case 'task.dead': case 'task.cancelled': return ended(event);
    case 'missed': return gap(event);
    case 'farewell': comeBack = event.reconnect_in_ms; return;
    case 'task.queued':
      if (!tasks.has(event.task_id)) learn(event.task_id, { kind: event.kind, client: event.client_id ?? null, state: 'queued' });
      return refreshSoon();
    case 'task.started':
      if (overtaken(event)) return;
      learn(event.task_id, { kind: event.kind, client: event.client_id ?? null, state: 'running', attempt: event.attempt, started: now(), ended: null, progress: null });
      return refreshSoon();
    case 'task.progress':
      if (!overtaken(event) && tasks.get(event.task_id)?.state === 'running') learn(event.task_id, { progress: event.progress });
      return;
    case 'task.retrying':
      if (overtaken(event)) return;
      log(`${event.kind} ${short(event.task_id)} failed in attempt ${event.attempt}, next in ${span(event.in_ms)}: ${event.error}`);
      learn(event.task_id, { kind: event.kind, client: event.client_id ?? null, state: 'queued', attempt: event.attempt, error: event.error, due: now() + event.in_ms });
      return refreshSoon();
  }
}

/** A hint may come after its task's end, and then says nothing new. */
function overtaken({ task_id, attempt }) {
  const task = tasks.get(task_id);
  return task && (task.attempt > attempt || (task.attempt === attempt && ENDED.has(task.state)));
}

function hello(event) {
  const before = pod;
  const first = number === null;
  const same = stream === event.stream;
  pod = event.pod ?? 'this server';
  stream = event.stream;
  token = event.id;
  tries = 0;
  text($('pod'), event.pod ?? 'none, not in a cluster');
  text($('namespace'), event.namespace ?? '');
  $('in-namespace').hidden = !event.namespace;
  inPod = Boolean(event.namespace);
  offerWhole();
  number = numberOf(event.id);
  text($('number'), `#${number}`);
  link('live', 'Live');
  if (first) {
    caughtUp = numberOf(event.head);
    log(`Connected to ${pod}`, 'big');
  }
  else returned(event, before, same);
  if (event.state !== 'Serving') drain(event.state);
  refresh();
  if (!first) pastSamples(); // of another pod
}

function returned(event, before, same) {
  const where = before === pod ? `Back on ${pod}` : `Moved from ${before} to ${pod}`;
  const away = span(Date.now() - lostAt);
  const behind = numberOf(event.head) - number;
  const words = event.resumed ? (behind ? `${several(behind, 'event')} came meanwhile and follow, none is missing` : 'nothing came meanwhile')
    : event.reason;
  log(`${where} after ${away}: ${words}`, 'big');
  if (handover) arrive(`${where}, away for ${away}: ${words}.`);
  say(`${where}: ${words}.`);
  if (event.missed && same) gap(event.missed);
}

function ended(event) {
  const its = numberOf(event.id);
  const state = event.type.slice(5);
  if (its <= number) return;
  if (its > number + 1) lost(its - number - 1);
  number = its;
  token = event.id;
  text($('number'), `#${number}`);
  const when = Date.parse(event.at);
  const past = its <= caughtUp;
  if (past && when < now() - HOUR) return;
  log(`#${its} ${event.kind} ${short(event.task_id)} ${state}${event.attempt > 1 ? ` in attempt ${event.attempt}` : ''}${event.error ? `: ${event.error}` : ''}`, state === 'dead' ? 'fault' : '', past ? when : Date.now());
  if (past) return; // the list has it
  learn(event.task_id, { kind: event.kind, client: event.client_id ?? null, state, attempt: event.attempt, error: event.error ?? null, ended: when, stopping: false });
  refreshSoon();
}

/** Events that are no longer kept; the next to come is the one after. */
function gap({ from, to }) {
  number = numberOf(to);
  token = to;
  lost(number - numberOf(from) + 1);
}

function lost(size) {
  gaps += size;
  const place = $('gaps');
  place.dataset.gaps = String(gaps);
  text(place, `, ${several(gaps, 'event')} missed`);
  log(`${several(size, 'event')} missed: the list is asked for again`, 'fault');
  refreshSoon();
}
