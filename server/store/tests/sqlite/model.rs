//! Whatever is done in whatever order, the store does what a few lines of plain code say.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use graceful_store::{
    Cancelled, Completion, Counts, Filter, Held, Hold, Lease, NewTask, Outcome, Owned, Retried, State,
    StoreError, StoreSettings, Submitted, TaskStore,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use uuid::Uuid;

use crate::conformance::fixture::{OwnedHistory, get, key, task, watched};
use crate::{Folder, open};

const SEED: u64 = 0x67_7261_6365;
const CAPACITY: u64 = 5;
const HOUR: Duration = Duration::from_secs(3600);

/// What is done; the numbers choose among the tasks that there are.
#[derive(Debug, Clone)]
enum Step {
    Submit { priority: i16, later: bool, max_attempts: u16, key: Option<(u8, u8)> },
    Claim { most: usize },
    Complete { which: usize, how: How, stale: bool },
    Progress { which: usize },
    Cancel { which: usize },
    Retry { which: usize },
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeed,
    FailAndRetry { later: bool },
    FailForGood,
    Cancel,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        Just(How::Succeed),
        any::<bool>().prop_map(|later| How::FailAndRetry { later }),
        Just(How::FailForGood),
        Just(How::Cancel),
        Just(How::Release),
    ];
    let name = proptest::option::weighted(0.4, (0..3_u8, 0..2_u8));
    let which = 0..40_usize;
    prop_oneof![
        6 => (-1..2_i16, proptest::bool::weighted(0.2), 1..4_u16, name)
            .prop_map(|(priority, later, max_attempts, key)| Step::Submit { priority, later, max_attempts, key }),
        4 => (1..4_usize).prop_map(|most| Step::Claim { most }),
        5 => (which.clone(), how, proptest::bool::weighted(0.1))
            .prop_map(|(which, how, stale)| Step::Complete { which, how, stale }),
        1 => which.clone().prop_map(|which| Step::Progress { which }),
        2 => which.clone().prop_map(|which| Step::Cancel { which }),
        2 => which.prop_map(|which| Step::Retry { which }),
        1 => Just(Step::Restart),
    ]
}

/// One task, as it should be.
#[derive(Debug)]
struct Known {
    id: Uuid,
    state: State,
    priority: i16,
    /// It waits for a time that does not come while the test runs.
    later: bool,
    due: i64,
    attempt: u16,
    max_attempts: u16,
    granted: u16,
    cancel_requested: bool,
    key: Option<(u8, u8)>,
    progress: bool,
    interrupted: bool,
}

#[derive(Debug, Default)]
struct Model {
    tasks: Vec<Known>,
    events: Vec<(Uuid, State, u16)>,
}

impl Model {
    fn count(&self, so: impl Fn(&Known) -> bool) -> u64 {
        self.tasks.iter().filter(|task| so(task)).count() as u64
    }

    fn owned(&self) -> Owned {
        Owned {
            queued: self.count(|task| task.state == State::Queued),
            running: self.count(|task| task.state == State::Running),
            delayed: None,
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            queued: self.count(|task| task.state == State::Queued && !task.later),
            delayed: self.count(|task| task.state == State::Queued && task.later),
            running: self.count(|task| task.state == State::Running),
            dead: self.count(|task| task.state == State::Dead),
        }
    }

    /// The next to be claimed.
    fn next(&mut self) -> Option<&mut Known> {
        self.tasks
            .iter_mut()
            .filter(|task| task.state == State::Queued && !task.later)
            .min_by_key(|task| (Reverse(task.priority), task.due, task.id))
    }

    fn end(&mut self, place: usize, state: State) -> State {
        let task = &mut self.tasks[place];
        task.state = state;
        self.events.push((task.id, state, task.attempt));
        state
    }

    fn complete(&mut self, place: usize, how: How) -> State {
        let task = &mut self.tasks[place];
        let left = task.attempt < task.max_attempts;
        match how {
            How::Succeed => self.end(place, State::Succeeded),
            How::Cancel => self.end(place, State::Cancelled),
            How::FailAndRetry { .. } | How::FailForGood | How::Release if task.cancel_requested => {
                self.end(place, State::Cancelled)
            }
            How::Release => {
                task.attempt -= 1;
                task.state = State::Queued;
                task.state
            }
            How::FailAndRetry { later } if left => {
                (task.state, task.later) = (State::Queued, later);
                task.state
            }
            How::FailAndRetry { .. } | How::FailForGood => self.end(place, State::Dead),
        }
    }

    fn crash(&mut self) {
        // In the order of the line.
        let mut places: Vec<_> =
            (0..self.tasks.len()).filter(|place| self.tasks[*place].state == State::Running).collect();
        places.sort_by_key(|place| {
            let task = &self.tasks[*place];
            (task.priority, task.due, task.id)
        });
        for place in places {
            let task = &mut self.tasks[place];
            match (task.cancel_requested, task.interrupted) {
                (true, _) => self.end(place, State::Cancelled),
                (false, true) => self.end(place, State::Dead),
                (false, false) => {
                    task.interrupted = true;
                    task.max_attempts += 1;
                    task.state = State::Queued;
                    task.state
                }
            };
        }
    }
}

/// The store beside its model.
struct Pair {
    folder: Folder,
    store: Arc<dyn TaskStore>,
    told: OwnedHistory,
    model: Model,
}

fn own_settings() -> (StoreSettings, OwnedHistory) {
    let (settings, told) = watched();
    // The second interruption is the last, so that none is followed by a pause.
    (StoreSettings { capacity: CAPACITY, max_interruptions: 2, ..settings }, told)
}

impl Pair {
    async fn new() -> Self {
        let folder = Folder::new();
        let (settings, told) = own_settings();
        let store = open(&folder.0, settings).await;
        Self { folder, store, told, model: Model::default() }
    }

    /// The place of a task that the number chooses.
    fn choose(&self, which: usize, so: impl Fn(&Known) -> bool) -> Option<usize> {
        let places: Vec<_> =
            (0..self.model.tasks.len()).filter(|place| so(&self.model.tasks[*place])).collect();
        (!places.is_empty()).then(|| places[which % places.len()])
    }

    async fn take(self, step: Step) -> Self {
        match step {
            Step::Submit { priority, later, max_attempts, key } => {
                self.submit(priority, later, max_attempts, key).await
            }
            Step::Claim { most } => self.claim(most).await,
            Step::Complete { which, how, stale } => self.complete(which, how, stale).await,
            Step::Progress { which } => self.progress(which).await,
            Step::Cancel { which } => self.cancel(which).await,
            Step::Retry { which } => self.retry(which).await,
            Step::Restart => self.restart().await,
        }
    }

    async fn submit(mut self, priority: i16, later: bool, max_attempts: u16, name: Option<(u8, u8)>) -> Self {
        let delay = if later { HOUR } else { Duration::ZERO };
        let idempotency = name.and_then(|(name, content)| key(&name.to_string(), &[content]));
        let new = NewTask { priority, delay, max_attempts, idempotency, ..task() };
        let id = new.id;
        let answer = self.store.submit(new, Hold::default()).await;
        let known = self
            .model
            .tasks
            .iter()
            .find(|task| name.is_some_and(|(name, _)| task.key.is_some_and(|(known, _)| name == known)));
        match (known, answer) {
            (Some(known), Ok(Submitted::Known(found))) => {
                assert_eq!((found.id, known.key), (known.id, name));
            }
            (Some(known), Ok(Submitted::KeyReused { id })) => {
                assert_eq!(id, known.id);
                assert_ne!(known.key, name);
            }
            // What comes back (retried, released, orphaned) always has room.
            (None, Err(StoreError::Full)) => assert!(self.model.owned().queued >= CAPACITY),
            (None, Ok(Submitted::New)) => {
                assert!(self.model.owned().queued < CAPACITY);
                let due = get(&self.store, id).await.due;
                self.model.tasks.push(Known {
                    id,
                    state: State::Queued,
                    priority,
                    later,
                    due,
                    attempt: 0,
                    max_attempts,
                    granted: max_attempts,
                    cancel_requested: false,
                    key: name,
                    progress: false,
                    interrupted: false,
                });
            }
            other => panic!("{other:?}"),
        }
        self
    }

    async fn claim(mut self, most: usize) -> Self {
        let mut expected = Vec::new();
        while expected.len() < most
            && let Some(task) = self.model.next()
        {
            task.state = State::Running;
            task.attempt += 1;
            task.progress = false;
            expected.push(Lease { id: task.id, attempt: task.attempt });
        }
        // A claim of what is not there would wait.
        if !expected.is_empty() {
            let claims = self.store.claim(most).await.unwrap();
            assert_eq!(claims.iter().map(|claim| claim.lease).collect::<Vec<_>>(), expected);
        }
        self
    }

    async fn complete(mut self, which: usize, how: How, stale: bool) -> Self {
        let Some(place) = self.choose(which, |task| stale || task.state == State::Running) else {
            return self;
        };
        let task = &self.model.tasks[place];
        let lost = stale || task.state != State::Running;
        let lease = Lease { id: task.id, attempt: task.attempt.wrapping_add(u16::from(stale)) };
        let wait = |later| Some(if later { HOUR } else { Duration::ZERO });
        let outcome = match how {
            How::Succeed => Outcome::Succeeded("1".to_owned()),
            How::FailAndRetry { later } => Outcome::Failed { error: "no".to_owned(), retry: wait(later) },
            How::FailForGood => Outcome::Failed { error: "no".to_owned(), retry: None },
            How::Cancel => Outcome::Cancelled,
            How::Release => Outcome::Released,
        };
        let answer = self.store.complete(lease, outcome).await.unwrap();
        if lost {
            assert_eq!(answer, Completion::Lost);
        } else {
            assert_eq!(answer, Completion::Now(self.model.complete(place, how)));
            self.model.tasks[place].due = get(&self.store, lease.id).await.due;
        }
        self
    }

    async fn progress(mut self, which: usize) -> Self {
        let Some(place) = self.choose(which, |_| true) else { return self };
        let task = &mut self.model.tasks[place];
        let lease = Lease { id: task.id, attempt: task.attempt };
        let expected = match task.state {
            State::Running if task.cancel_requested => Held::CancelRequested,
            State::Running => Held::Yes,
            State::Queued | State::Succeeded | State::Dead | State::Cancelled => Held::Lost,
        };
        task.progress |= expected != Held::Lost;
        assert_eq!(self.store.renew(&[lease]).await.unwrap(), [expected]);
        assert_eq!(self.store.progress(lease, "7".to_owned()).await.unwrap(), expected);
        self
    }

    async fn cancel(mut self, which: usize) -> Self {
        let Some(place) = self.choose(which, |_| true) else { return self };
        let answer = self.store.cancel(self.model.tasks[place].id).await.unwrap();
        match self.model.tasks[place].state {
            State::Queued => {
                self.model.end(place, State::Cancelled);
                assert!(matches!(answer, Cancelled::Now(_)), "{answer:?}");
            }
            State::Running => {
                self.model.tasks[place].cancel_requested = true;
                assert!(matches!(answer, Cancelled::Asked(_)), "{answer:?}");
            }
            State::Succeeded | State::Dead | State::Cancelled => {
                assert!(matches!(answer, Cancelled::TooLate(_)), "{answer:?}");
            }
        }
        self
    }

    async fn retry(mut self, which: usize) -> Self {
        let Some(place) = self.choose(which, |_| true) else { return self };
        let answer = self.store.retry(self.model.tasks[place].id, Hold::default()).await.unwrap();
        let task = &mut self.model.tasks[place];
        match (task.state, answer) {
            (State::Dead | State::Cancelled, Retried::Now(found)) => {
                (task.state, task.later, task.due) = (State::Queued, false, found.due);
                (task.cancel_requested, task.progress, task.interrupted) = (false, false, false);
                task.max_attempts = task.attempt + task.granted;
            }
            (State::Queued | State::Running | State::Succeeded, Retried::NotEnded(_)) => {}
            other => panic!("{other:?}"),
        }
        self
    }

    async fn restart(self) -> Self {
        let Self { folder, store, mut model, .. } = self;
        drop(store);
        model.crash();
        let (settings, told) = own_settings();
        let store = open(&folder.0, settings).await;
        Self { folder, store, told, model }
    }

    /// Everything that can be looked at.
    async fn compare(&self) {
        let told = self.told.latest();
        assert_eq!(Owned { delayed: None, ..told }, self.model.owned());
        assert_eq!(told.delayed.map_or(0, |delayed| delayed.tasks), self.model.counts().delayed);
        assert_eq!(self.store.counts().await.unwrap(), self.model.counts());
        let listed = self.store.list(&Filter::default(), None, 1000).await.unwrap().tasks;
        assert_eq!(listed.len(), self.model.tasks.len());
        for (task, found) in self.model.tasks.iter().rev().zip(listed) {
            assert_eq!((found.id, found.state, found.attempt), (task.id, task.state, task.attempt));
            assert_eq!((found.max_attempts, found.priority), (task.max_attempts, task.priority));
            assert_eq!((found.due, found.progress.is_some()), (task.due, task.progress));
            assert_eq!(found.cancel_requested, task.cancel_requested);
            assert_eq!(found.ended.is_some(), task.state.ended());
        }
        let events = self.store.events(0, 1000).await.unwrap().events;
        let told: Vec<_> = events.iter().map(|event| (event.task_id, event.state, event.attempt)).collect();
        assert_eq!(told, self.model.events);
        assert!(events.iter().map(|event| event.number).eq(1..=events.len() as u64));
        assert_eq!(*self.store.head().borrow(), events.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 200,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(SEED),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_does_what_the_model_says(steps in proptest::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for step in steps {
                pair = pair.take(step).await;
                pair.compare().await;
            }
        });
    }
}
