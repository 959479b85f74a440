//! Does what the elector says: reads and writes the Lease, through a client of its own, so that no other traffic delays a renewal.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tracing::{info, warn};

use super::elector::{Elector, Identity, Lost, Record, Step, Version};
use super::{Leadership, Lease, Term};
use crate::clock::since_boot;
use crate::error::chain;

/// One process' candidacy.
pub(crate) struct Campaign {
    api: Api<LeaseObject>,
    lease: Lease,
    elector: Elector,
    term: Arc<Term>,
    /// The Lease as it was last seen, which a write carries on with.
    object: Option<LeaseObject>,
    /// Said once while it lasts.
    troubled: bool,
    /// What time it is on this node, for the Lease's own times, which people read: nothing is decided by it.
    time_of_day: TimeOfDay,
}

/// In tests one that jumps.
pub(crate) type TimeOfDay = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl Campaign {
    /// `name` is what people know this process by.
    pub(crate) fn new(client: Client, lease: Lease, name: Option<&str>) -> Self {
        // A container that is started anew keeps the pod's name, and must not take its predecessor's term for its own.
        let identity = Identity(format!("{}_{:016x}", name.unwrap_or("operator"), rand::random::<u64>()));
        let api = Api::namespaced(client, &lease.namespace);
        let elector = Elector::new(identity, lease.timing);
        let time_of_day = Arc::new(Timestamp::now);
        Self { api, lease, elector, term: Arc::default(), object: None, troubled: false, time_of_day }
    }

    /// On a node that has this time.
    #[cfg(test)]
    pub(crate) fn at(self, time_of_day: TimeOfDay) -> Self {
        Self { time_of_day, ..self }
    }

    /// What is asked before each write.
    pub(crate) fn leadership(&self) -> Leadership {
        Leadership::Elected(Arc::clone(&self.term))
    }

    /// Stands for election, leads, and ends with the term: then says why. With `stop` the lease is released, so that a standby need not wait it out.
    /// `stop` says whether all that was begun has ended.
    pub(crate) async fn run(mut self, stop: impl Future<Output = bool>) -> Option<String> {
        let lost = {
            let stand = self.stand();
            tokio::pin!(stand);
            tokio::select! {
                lost = &mut stand => Err(lost),
                work_ended = stop => Ok(work_ended),
            }
        };
        self.term.end();
        match lost {
            Err(why) => Some(why),
            Ok(true) => {
                self.release().await;
                None
            }
            Ok(false) => {
                info!("the lease is not released, since a call may be under way: it runs out");
                None
            }
        }
    }

    async fn stand(&mut self) -> String {
        loop {
            match self.elector.step(since_boot()) {
                Step::Wait(left) => tokio::time::sleep(left).await,
                Step::Read => self.read().await,
                Step::Write(version) => self.write(version).await,
                Step::Lost(Lost::Expired) => {
                    let deadline = self.lease.timing.renew_deadline;
                    return format!("no renewal of the lease came through within {deadline:?}");
                }
                Step::Lost(Lost::Taken) => {
                    return match self.elector.holder() {
                        Some(holder) => format!("another operator holds the lease now: {}", holder.0),
                        None => "somebody deleted or released the lease".to_owned(),
                    };
                }
            }
        }
    }

    async fn read(&mut self) {
        self.elector.asks(since_boot());
        let answer = self.within(self.api.get_opt(&self.lease.name)).await;
        match answer {
            Ok(object) => {
                self.hears();
                let before = self.elector.holder().cloned();
                self.elector.saw(object.as_ref().and_then(record), since_boot());
                self.object = object;
                let holder = self.elector.holder().cloned();
                if let Some(holder) =
                    holder.filter(|h| Some(h) != before.as_ref() && h != self.elector.identity())
                {
                    info!(leader = holder.0, "another operator leads; this one stands by");
                }
            }
            Err(why) => self.cannot("read the lease", &why),
        }
    }

    /// Puts our name into the Lease in place of exactly this version.
    async fn write(&mut self, version: Option<Version>) {
        let before = self.elector.holder().cloned();
        let object = self.written(Some(&self.elector.identity().0), version.as_ref());
        let sent = since_boot();
        self.elector.asks(sent);
        let answer = match version {
            None => self.within(self.api.create(&PostParams::default(), &object)).await,
            Some(_) => self.within(self.api.replace(&self.lease.name, &PostParams::default(), &object)).await,
        };
        let written = match answer {
            Ok(written) => written,
            Err(why) => {
                self.elector.failed();
                return self.cannot("write the lease", &why);
            }
        };
        self.hears();
        // What admission made of it may name another: only our own name in the answer is a term.
        let Some(record) = record(&written).filter(|r| r.holder.as_ref() == Some(self.elector.identity()))
        else {
            self.elector.failed();
            return self.cannot("write the lease", "the answer does not name this process");
        };
        let began = self.elector.until().is_none();
        self.elector.wrote(record, sent, since_boot());
        self.object = Some(written);
        if let Some(until) = self.elector.until().filter(|until| since_boot() < *until) {
            self.term.extend(until);
            if began {
                let identity = &self.elector.identity().0;
                match before.filter(|holder| holder != self.elector.identity()) {
                    Some(from) => {
                        info!(identity, from = from.0, "this operator leads: the lease of another ran out");
                    }
                    None => info!(identity, "this operator leads: the lease was free"),
                }
            }
        }
    }

    /// Empties the holder. Read first: a write that was broken off may have moved the version, or taken the lease.
    async fn release(&mut self) {
        for _ in 0..2 {
            self.read().await;
            let Some(version) = self.elector.own_version().cloned() else { return };
            let object = self.written(None, Some(&version));
            match self.within(self.api.replace(&self.lease.name, &PostParams::default(), &object)).await {
                Ok(_) => return info!("the lease is released"),
                Err(why) => warn!("cannot release the lease: {why}"),
            }
        }
    }

    /// The Lease as it is to be: who holds it, since when, and how often it has changed hands.
    fn written(&self, holder: Option<&str>, version: Option<&Version>) -> LeaseObject {
        let old = self.object.as_ref();
        let spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let now = MicroTime((self.time_of_day)());
        let (acquired, transitions) = match holder {
            Some(holder) if spec.holder_identity.as_deref() != Some(holder) => {
                let first = old.is_none();
                (Some(now.clone()), spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(!first)))
            }
            Some(_) | None => (spec.acquire_time, spec.lease_transitions.unwrap_or(0)),
        };
        let mut metadata = old.map(|lease| lease.metadata.clone()).unwrap_or_default();
        metadata.managed_fields = None;
        metadata.resource_version = version.map(|version| version.0.clone());
        LeaseObject {
            metadata: ObjectMeta { name: Some(self.lease.name.clone()), ..metadata },
            spec: Some(LeaseSpec {
                // Empty and not absent, as client-go releases.
                holder_identity: Some(holder.unwrap_or_default().to_owned()),
                lease_duration_seconds: Some(seconds(self.lease.timing.lease_duration)),
                acquire_time: acquired,
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..spec
            }),
        }
    }

    /// Half the renew deadline, as client-go's users have it: an answer that never comes leaves time for another try.
    async fn within<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
        let deadline = self.lease.timing.renew_deadline / 2;
        match tokio::time::timeout(deadline, call).await {
            Ok(answer) => answer.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer within {deadline:?}")),
        }
    }

    fn cannot(&mut self, what: &str, why: &str) {
        if !std::mem::replace(&mut self.troubled, true) {
            warn!("cannot {what}: {why}; retrying");
        }
    }

    fn hears(&mut self) {
        if std::mem::take(&mut self.troubled) {
            info!("the lease can be read and written again");
        }
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// What the elector goes by. An object without a version is no answer of an API server.
fn record(object: &LeaseObject) -> Option<Record> {
    let version = Version(object.metadata.resource_version.clone()?);
    let spec = object.spec.as_ref();
    let holder = spec.and_then(|s| s.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let seconds = spec.and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    // A record that asks for more than an hour is no one's promise.
    let lease = Duration::from_secs(seconds.unwrap_or(0).min(3600));
    Some(Record { version, holder: holder.map(Identity), lease })
}
