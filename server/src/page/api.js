// Talking to the API.

let key = store?.getItem('token') ?? ''; // where the server asks for one
let declined = false;
$('key-open').hidden = !key;

/** What a token must be for. */
const scopeOf = (method, path) => (method === 'GET' ? 'read' : path === '/v1/tasks' ? 'submit' : 'admin');

class Refused extends Error {
  constructor(status, problem, after, scope) {
    let words = problem?.detail || problem?.title || `the server answered ${status}`;
    if (status === 401) words = `it needs a token with the scope ${scope}`;
    if (problem?.type?.endsWith(':narrow-token')) words = `it needs a token with the scope ${scope}, and yours is for other things; “Use a token” at the foot of the page takes another`;
    super(after ? `${words.replace(/\.$/, '')}. Try again in ${after} s.` : words);
    this.status = status;
    this.field = problem?.field;
  }
}

async function call(method, path, body, headers = {}) {
  const options = { method, headers: { accept: 'application/json', ...headers }, cache: 'no-store' };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers['content-type'] = 'application/json';
  }
  if (key) options.headers.authorization = `Bearer ${key}`;
  const used = key;
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error('the server cannot be reached');
  }
  const date = Date.parse(response.headers.get('date') ?? '');
  if (Math.abs(date - Date.now()) > 3000) skew = date - Date.now();
  const answer = await response.json().catch(() => null);
  if (response.status === 401 && used === key) {
    $('key-open').hidden = false;
    // Whoever closed the question is not asked again with each look at the list.
    if (!declined || method !== 'GET') askForKey(used ? answer?.detail : '', scopeOf(method, path));
  }
  if (!response.ok) throw new Refused(response.status, answer, response.headers.get('retry-after'), scopeOf(method, path));
  return answer;
}

function askForKey(words, scope = 'read') {
  // A look that comes after an action's question must not ask for less.
  if (!$('key').open || scope !== 'read') text($('key-words'), `Ask who runs it for one with the scope ${scope}. It is kept in this tab until that is closed.`);
  if (words) text($('key-fault'), words);
  if (!$('key').open) $('key').showModal();
}

$('key').addEventListener('cancel', () => { declined = true; });
$('key-open').addEventListener('click', () => { text($('key-fault'), ''); askForKey(); });
$('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const typed = $('key-input').value.trim();
  // What may stand in a header and among a socket's subprotocols.
  if (!/^[\w.~-]+$/.test(typed)) return text($('key-fault'), 'This is no token: they begin with gt_ and have letters, digits, - and _.');
  key = typed;
  declined = false;
  store?.setItem('token', key);
  $('key-input').value = '';
  text($('key-fault'), '');
  $('key-open').hidden = false;
  $('key').close();
  socket?.close();
  connectNow();
  offerKinds();
  refresh();
});
