//! What operator and pods say to each other: requests and answers that may be lost, late or refused.

use graceful_api::Signal;
use graceful_plan::{Answer, Conversation, PodUid, Reading, Request};

use super::World;

impl World {
    /// What the probes do in a second: each conversation one exchange, which may be lost.
    pub(super) fn converse(&mut self) {
        let conversations: Vec<_> = self.conversations.iter().map(|(u, c)| (u.clone(), *c)).collect();
        for (uid, conversation) in conversations {
            let lost = self.random.chance(self.faults.lose);
            let Some(i) =
                self.pods.iter().position(|p| p.uid == uid && (!p.terminating() || p.killed_at.is_some()))
            else {
                // What a terminating pod said last is remembered for as long as it is there.
                if !self.pods.iter().any(|p| p.uid == uid) {
                    self.dialogues.remove(&uid);
                }
                continue;
            };
            if conversation == Conversation::Survey && self.random.chance(900) {
                continue;
            }
            // What is lost is the request, or the answer after the pod has obeyed.
            let obeyed = self.answers(&self.pods[i]) && (!lost || self.random.chance(500));
            let request = self.dialogues.entry(uid.clone()).or_default().request();
            let taken = !obeyed || self.say(i, request);
            if lost || !obeyed {
                self.unheard(&uid, "no answer in 2 s");
            } else if taken {
                self.heard(i, &uid, request);
            } else if self.refuses(i) {
                // Asked once more, whether it is the pod that is meant.
                self.heard(i, &uid, Request::Status);
                let why = "401: the token's key is not known".to_owned();
                self.dialogues.entry(uid.clone()).or_default().refused(why, self.now);
            } else {
                // The pod's own view says which epoch it has seen.
                self.unheard(&uid, "409");
                self.heard(i, &uid, Request::Status);
            }
        }
    }

    fn unheard(&mut self, uid: &PodUid, message: &str) {
        self.dialogues.entry(uid.clone()).or_default().failed(message.to_owned(), self.now);
    }

    /// False is a 409, or a 401 of one that refuses. A language other than Graceful has no word for either.
    fn say(&mut self, i: usize, request: Request) -> bool {
        let (now, graceful) = (self.now, self.graceful(i));
        if graceful && request != Request::Status && self.refuses(i) {
            return false;
        }
        let Some(process) = self.pods[i].process.as_mut().filter(|_| graceful) else {
            return true;
        };
        match request {
            Request::Drain { epoch, linger_seconds } => process.drain(epoch, linger_seconds, now),
            Request::Resume { epoch } => process.resume(epoch),
            Request::Status => true,
        }
    }

    pub(super) fn refuses(&self, i: usize) -> bool {
        self.behaviour(&self.pods[i].revision) == super::Behaviour::KnowsNoKey
    }

    fn graceful(&self, i: usize) -> bool {
        self.policy_of(i).signal == Signal::Http
    }

    fn heard(&mut self, i: usize, uid: &PodUid, request: Request) {
        let (now, graceful) = (self.now, self.graceful(i));
        let Some(process) = &self.pods[i].process else {
            return;
        };
        let boot = process.boot;
        let mut answer = process.answer(now, graceful);
        // A late answer: what this very process said some time ago.
        if graceful && self.random.chance(self.faults.repeat) {
            let said = self.said.iter().filter(|(of, at_boot, _)| of == uid && *at_boot == boot);
            answer = said.map(|(_, _, a)| a.clone()).nth_back(1).unwrap_or(answer);
        }
        self.said.push((uid.clone(), boot, answer.clone()));
        let Answer { at: _, in_flight, protocol, scheduled } = answer;
        let boot_id = graceful.then(|| boot.to_string());
        let dialogue = self.dialogues.entry(uid.clone()).or_default();
        dialogue.runs_as(&boot.to_string());
        dialogue.heard(request, Reading { in_flight, protocol, scheduled, boot_id }, now);
    }
}
