// The plot: how much waited and ran over the last hour, and how fast tasks ended. The pod has samples from before the page was
// opened; the page adds its own, so that it goes on where another pod begins without any.

const WIDTH = 600;
const BARS = 60;
const LEAST = 600_000;    // ms on the time axis at least: a minute drawn as wide as an hour would look like one
const SAMPLE = 10_000;    // ms between samples of our own, as the pod takes them
let samples = [];
let endedBefore = null;   // the stream, and its number at our last sample

async function pastSamples() {
  let past;
  try {
    past = await call('GET', '/v1/queue/history');
  } catch {
    return; // the list says what is wrong
  }
  const theirs = past.samples.map((sample) => ({ ...sample, at: Date.parse(sample.at) }));
  const first = theirs[0]?.at ?? Infinity;
  const last = theirs.at(-1)?.at ?? 0;
  samples = [...samples.filter(({ at }) => at < first), ...theirs, ...samples.filter(({ at }) => at > Math.max(first, last))];
  draw();
}

function sample({ queued, delayed, running }) {
  const at = now();
  if (samples.length && at - samples.at(-1).at < SAMPLE) return;
  const last = Math.max(number, caughtUp); // what is told of the past is no news
  const same = endedBefore && endedBefore.stream === stream && number !== null;
  samples.push({ at, queued, delayed, running, ended: same ? last - endedBefore.number : null });
  endedBefore = number === null ? null : { stream, number: last };
  while (samples[0].at < at - HOUR) samples.shift();
  draw();
}

/** From when to when: an hour, or less where there is less to show. */
function axis() {
  const to = Math.max(now(), samples.at(-1).at);
  return { from: to - Math.min(HOUR, Math.max(LEAST, to - samples[0].at)), to };
}

function draw() {
  if (samples.length === 0) return;
  const { from, to } = axis();
  const x = (at) => ((at - from) / (to - from)) * WIDTH;
  text($('plot-from'), time(from));
  text($('plot-to'), time(to));
  drawEnded(from, to);
  const most = Math.max(1, ...samples.map(({ queued, delayed, running }) => Math.max(queued, delayed, running)));
  const line = (name) => {
    const points = samples.map((sample) => `${x(sample.at).toFixed(1)},${(88 - (sample[name] / most) * 84).toFixed(1)}`);
    return svg('path', { class: name, d: `M${points.join('L')}` });
  };
  $('plot-states').replaceChildren(line('delayed'), line('queued'), line('running'));
  text($('plot-states-most'), `at most ${count.format(most)}`);
  const last = samples.at(-1);
  $('plot-states').setAttribute('aria-label', `Since ${time(from)}: at most ${count.format(most)} queued, delayed or running at a time; now ${count.format(last.queued)} queued, ${count.format(last.delayed)} delayed, ${count.format(last.running)} running.`);
}

function drawEnded(from, to) {
  const each = (to - from) / BARS;
  const ended = new Array(BARS).fill(0);
  for (const sample of samples) {
    const bar = Math.min(BARS - 1, Math.floor((sample.at - from) / each));
    if (bar >= 0) ended[bar] += sample.ended ?? 0;
  }
  const most = Math.max(...ended);
  const bars = ended.map((many, bar) => {
    const height = most ? (many / most) * 56 : 0;
    return svg('rect', { x: (bar * WIDTH) / BARS + 0.5, width: WIDTH / BARS - 1, y: (60 - height).toFixed(1), height: height.toFixed(1) });
  });
  $('plot-ended').replaceChildren(...bars);
  const rate = (many) => { const a = (many * 1000) / each; return a >= 10 ? count.format(Math.round(a)) : a.toFixed(1); };
  text($('plot-ended-most'), `at most ${rate(most)} a second`);
  const total = ended.reduce((sum, many) => sum + many, 0);
  $('plot-ended').setAttribute('aria-label', `Since ${time(from)} ${several(total, 'task')} ended, at most ${rate(most)} a second.`);
}

/** What was so at the place that somebody points at. */
function pointAt(event) {
  if (samples.length === 0) return;
  const box = $('plot-states').getBoundingClientRect();
  const { from, to } = axis();
  const at = from + ((event.clientX - box.left) / box.width) * (to - from);
  const near = samples.reduce((best, one) => (Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best));
  text($('plot-at'), `${time(near.at)}: ${count.format(near.queued)} queued, ${count.format(near.delayed)} delayed, ${count.format(near.running)} running`);
}
for (const id of ['plot-ended', 'plot-states']) {
  $(id).addEventListener('pointermove', pointAt);
  $(id).addEventListener('pointerleave', () => text($('plot-at'), ''));
}
text($('zone-words'), `Times are in ${new Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
