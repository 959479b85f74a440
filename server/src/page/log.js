// The event log.

let lines = [];
function log(words, look = '', ms = Date.now()) {
  lines.push(make('li', {}, make('time', { datetime: new Date(ms).toISOString() }, time(ms)), make('span', look ? { class: look } : {}, words)));
  if (lines.length === 1) requestAnimationFrame(writeLog);
  // In a tab that nobody sees nothing is painted, and events go on.
  if (lines.length > 2 * LOG) lines = lines.slice(-LOG);
}
function writeLog() {
  const list = $('log');
  const latest = lines.slice(-LOG).reverse();
  lines = [];
  list.prepend(...latest);
  while (list.childElementCount > LOG) list.lastElementChild.remove();
}
