// Small things.

const PAGE = 50;          // tasks asked for at a time
const LIVE = 150;         // rows that come by themselves; older ones make room, and are a "Load more" away
const MOST = 500;         // rows with all that was loaded on top
const HOUR = 3_600_000;   // ms that the plot and the event log look back
const LOG = 1000;         // lines kept in the event log, and events asked for as the page opens
const CALM = 10_000;      // ms between looks at an empty queue, …
const BUSY = 3_000;       // … at one whose tasks may run on other pods, of which only the ends are told, …
const EAGER = 1_200;      // … and after an event that does not tell all
const ENDED = new Set(['succeeded', 'dead', 'cancelled']);
const STATES = new Set(['queued', 'running', ...ENDED]);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const RANK = { queued: 0, running: 1, succeeded: 2, dead: 2, cancelled: 2 };

const $ = (id) => document.getElementById(id);
const text = (node, words) => { if (node.textContent !== words) node.textContent = words; };
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const icon = (state) => {
  const drawn = svg('svg', { class: 'icon', 'aria-hidden': 'true' });
  drawn.append(svg('use', { href: `#i-${state}` }));
  return drawn;
};
const svg = (tag, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const random = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, '0')).join('');
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const time = (ms = Date.now()) => clock.format(ms);
// One time zone for all that is shown: that of whoever looks.
const day = new Intl.DateTimeFormat('en-CA', { year: 'numeric', month: '2-digit', day: '2-digit' });
const moment = (ms) => (ms ? `${day.format(ms)} ${time(ms)}` : null);
const count = new Intl.NumberFormat('en-GB');
const several = (n, one, many = `${one}s`) => `${count.format(n)} ${n === 1 ? one : many}`;
const short = (id) => id.slice(-8);
const span = (ms) => {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86_400)} days`;
};
// Whole seconds for what still runs: tenths that stand still between ticks look broken.
const counting = (ms) => (ms < 10_000 ? `${Math.floor(Math.max(0, ms) / 1000)} s` : span(ms));
const say = (words) => text($('live'), words);

// The server's clock decides how long something waits; a browser's may be wrong.
let skew = 0;
const now = () => Date.now() + skew;

const store = (() => { try { return sessionStorage; } catch { return null; } })(); // may be forbidden
