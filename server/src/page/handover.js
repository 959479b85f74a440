// The pod goes.

const WORDS = {
  Lingering: 'It still takes tasks for a moment, while the cluster learns that it goes.',
  Draining: 'It takes no new tasks and finishes those it has.',
  Idle: 'All its tasks have ended.',
  Terminating: 'It is told to end.',
};

function drain(state) {
  if (state === 'Serving') {
    if (handover) {
      handover = null;
      $('handover').hidden = true;
      log(`${pod} serves again`, 'big');
      say('The pod serves again.');
    }
    return link('live', 'Live');
  }
  link('draining', 'Pod is draining');
  if (!handover || handover.back) begin();
  text($('handover-words'), WORDS[state] ?? state);
  if (state === 'Draining') step('told');
  if (state === 'Idle') { step('told'); step('finish'); }
  log(`${pod}: ${state}`, 'big');
}

function begin() {
  handover = { from: pod };
  for (const item of $('steps').children) {
    delete item.dataset.at;
    item.removeAttribute('aria-current');
    text(item.lastElementChild, '');
  }
  $('handover').hidden = false;
  $('handover').classList.remove('done');
  $('handover-close').hidden = true;
  text($('handover-title'), `${pod} is going`);
  step('told');
  say('The pod is going: its tasks finish, then this page moves to another one.');
}

function step(name, words) {
  const steps = [...$('steps').children];
  const item = steps.find((step) => step.dataset.step === name);
  if (item.dataset.at) return;
  item.dataset.at = time();
  text(item.lastElementChild, words ? `${words}, ${item.dataset.at}` : item.dataset.at);
  for (const other of steps) other.removeAttribute('aria-current');
  steps[steps.indexOf(item) + 1]?.setAttribute('aria-current', 'step');
}

function arrive(words) {
  for (const name of ['told', 'finish', 'closed']) step(name);
  step('back', pod);
  handover.back = true;
  $('handover').classList.add('done');
  $('handover-close').hidden = false;
  text($('handover-title'), pod === handover.from ? 'Back on the same pod' : 'Moved to another pod');
  text($('handover-words'), words);
}

$('handover-close').addEventListener('click', () => {
  $('handover').hidden = true;
  handover = null;
  $('tasks-heading').focus();
});
$('reconnect').addEventListener('click', connectNow);
addEventListener('online', connectNow);
