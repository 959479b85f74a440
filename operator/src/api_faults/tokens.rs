//! The keys that drains are signed with: made once by whoever is first, rotated without a restart, and lost without a pod that cannot be drained.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::faulty::{Dice, client};
use super::lifecycle::condition;
use super::scenarios::{CALM, Limits, Stage, spec, template};
use super::world::{Key, World};
use crate::clock::Clock;
use crate::keys::{FRESH, Keep, KeyId, KeySecret, Keyring, Ring, Store, ids, keep};
use crate::leader::Leadership;
use crate::run::Tokens;

pub(super) fn secret() -> KeySecret {
    KeySecret { namespace: "system".to_owned(), name: "drain-keys".to_owned() }
}

fn key() -> Key {
    let KeySecret { namespace, name } = secret();
    ("secrets".to_owned(), namespace, name)
}

/// As the chart makes it.
pub(super) fn empty_secret(world: &World) {
    world.write(|w| w.create("secrets", "system", json!({"metadata": {"name": "drain-keys"}})).unwrap());
}

fn entries(world: &World) -> BTreeSet<String> {
    let secret = world.open().all[&key()].clone();
    secret["data"].as_object().into_iter().flatten().map(|(entry, _)| entry.clone()).collect()
}

/// Somebody writes all of its data.
fn replace(world: &World, data: Value) {
    world.write(|w| {
        w.edit(&key(), &json!({}), |secret| {
            secret["data"] = data;
            Ok(())
        })
        .unwrap();
    });
}

/// What a process that leads does with it, once it has looked; `named` are in use.
async fn keeping(world: &World, named: Option<BTreeSet<KeyId>>) -> (Keyring, JoinHandle<()>) {
    let (tried, mut looked) = watch::channel(false);
    let keyring = Keyring::new(true);
    let keys = Keep {
        secret: secret(),
        client: client(world, &Dice::new(1, 0)),
        keyring: keyring.clone(),
        leadership: Leadership::default(),
        clock: Clock::default(),
        tried,
    };
    let keeps = tokio::spawn(keep(keys, move || named.clone(), || ()));
    looked.wait_for(|looked| *looked).await.unwrap();
    (keyring, keeps)
}

/// The Secret is lost, pods are given new keys, and then a backup of it is put back: pods of both times are signed for, by this operator and by the next.
#[tokio::test(start_paused = true)]
async fn a_secret_that_is_restored_under_a_running_operator_costs_nobody_a_key() {
    let world = World::default();
    empty_secret(&world);
    let (first, keeps) = keeping(&world, None).await;
    let before = ids(&first.public_halves().unwrap());
    keeps.abort();
    let backup = world.open().all[&key()]["data"].clone();
    replace(&world, json!({}));
    let (second, keeps) = keeping(&world, None).await;
    let since = ids(&second.public_halves().unwrap());
    assert!(!second.knows(&before) && second.knows(&since));
    replace(&world, backup);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(second.knows(&before) && second.knows(&since), "{:?}", second.ring());
    keeps.abort();
    let all: Vec<_> = before.iter().chain(&since).cloned().collect();
    let (third, _keeps) = keeping(&world, Some(all.iter().cloned().collect())).await;
    tokio::time::sleep(Duration::from_secs(2000)).await;
    assert!(all.iter().all(|id| third.knows(std::slice::from_ref(id))), "{:?}", third.ring());
    assert_eq!(entries(&world).len(), 4);
}

/// Many operators find it empty in the same moment, and their writes fail, or succeed without a word. All hold the same keys in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_that_race_to_make_the_keys_hold_the_same_ones() {
    for seed in 1..=20 {
        let (world, dice) = (World::default(), Dice::new(seed, 20));
        empty_secret(&world);
        let one = || {
            let store = Store::new(client(&world, &dice), secret());
            tokio::spawn(async move {
                loop {
                    if let Ok(ring) = store.read_or_fill(None, Timestamp::now).await {
                        return ring;
                    }
                }
            })
        };
        let rings = futures::future::join_all((0..4).map(|_| one())).await;
        let rings: Vec<Ring> = rings.into_iter().map(Result::unwrap).collect();
        assert!(rings.iter().all(|ring| *ring == rings[0]), "seed {seed}: {rings:?}");
        assert_eq!(entries(&world), ["current".to_owned(), "next".to_owned()].into());
    }
}

/// What a process held is written back where somebody emptied the Secret, and what it cannot read is left as it is.
#[tokio::test]
async fn an_emptied_secret_is_filled_from_memory_and_a_garbled_one_is_left() {
    let (world, dice) = (World::default(), Dice::new(1, 0));
    empty_secret(&world);
    let store = Store::new(client(&world, &dice), secret());
    let ring = store.read_or_fill(None, Timestamp::now).await.unwrap();
    let set = |data: Value| replace(&world, data);
    set(json!({}));
    assert_eq!(store.read_or_fill(Some(&ring), Timestamp::now).await.unwrap(), ring);
    assert_eq!(store.read_or_fill(None, Timestamp::now).await.unwrap(), ring);
    set(json!({"current": "bm9uc2Vuc2U="}));
    let version = world.open().version();
    let why = store.read_or_fill(Some(&ring), Timestamp::now).await.unwrap_err().to_string();
    assert!(why.contains("system/drain-keys") && why.contains("current"), "{why}");
    assert_eq!(world.open().version(), version, "nothing was written");
}

async fn stage(seed: u64, percent: u32) -> Stage {
    stage_where(seed, percent, 0).await
}

/// So many reads of the Secret fail at first.
async fn stage_where(seed: u64, percent: u32, failing_reads: u32) -> Stage {
    let mut stage = Stage::bare(seed, percent);
    empty_secret(&stage.world);
    stage.world.open().failing_secret_reads = failing_reads;
    stage.tokens = Some(Tokens { secret: secret(), verify: true });
    stage.begin(spec(3)).await;
    stage
}

/// The ids that the pods of this template were given.
fn given(stage: &Stage, try_: &str) -> BTreeSet<String> {
    let pods = stage.world.list("pods");
    let of = pods.iter().filter(|p| p["metadata"]["labels"]["try"] == try_);
    of.flat_map(|p| p["spec"]["containers"][0]["env"].as_array().unwrap().clone())
        .filter(|v| v["name"] == "GRACEFUL_DRAIN_KEYS")
        .flat_map(|v| ids(v["value"].as_str().unwrap()))
        .map(|id| id.0)
        .collect()
}

/// P1, P3, P5: pods that verify, calls that fail, and an operator that dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_verify_are_drained_over_a_rotation_and_none_is_restarted() {
    let mut stage = stage(41, 8).await;
    let limits = |serving| Limits { serving, pods: 4, kills: true };
    stage.until("the first three pods", limits(0), |s| s.settled("0", 3)).await;
    let first = given(&stage, "0");
    assert_eq!(first.len(), 2, "each is given the same two");
    let pods = stage.world.list("pods").len();
    let store = Store::new(client(&stage.world, &Dice::new(1, 0)), secret());
    for _ in 0..2 {
        let now = Timestamp::now();
        store.change(|found| Ok(found.unwrap().rotated(&mut rand::rng(), now))).await.unwrap();
    }
    stage.kill_the_operator().await;
    assert_eq!(stage.world.list("pods").len(), pods);
    stage.change(&template("1"));
    stage.until("a rollout", limits(3), |s| s.settled("1", 3)).await;
    assert!(given(&stage, "1").is_disjoint(&first), "new pods are given new keys");
    stage.change(&json!({"spec": {"replicas": 1}}));
    stage.until("two fewer", limits(1), |s| s.settled("1", 1)).await;
    stage.lost_nothing();
    assert_eq!(entries(&stage.world).len(), 4, "a Deployment at 0 names the first two");
}

/// A key has leaked, and what is made after the rotation must not trust it: the operator's own look, once a minute, would come too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_made_after_a_rotation_has_the_new_keys() {
    let mut stage = stage(43, 0).await;
    stage.until("the first three pods", CALM, |s| s.settled("0", 3)).await;
    let first = given(&stage, "0");
    let store = Store::new(client(&stage.world, &Dice::new(1, 0)), secret());
    for _ in 0..2 {
        store.change(|found| Ok(found.unwrap().rotated(&mut rand::rng(), Timestamp::now()))).await.unwrap();
    }
    // As `rotate-key` says.
    tokio::time::sleep(FRESH).await;
    stage.change(&template("1"));
    stage.until("a rollout", CALM, |s| s.settled("1", 3)).await;
    assert!(given(&stage, "1").is_disjoint(&first));
    stage.lost_nothing();
}

/// The key is lost: nobody can latch the pods of before. They go by their quiet zero, said in a Warning; nothing is lost, and the next ones are told again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_whose_keys_are_lost_can_be_drained_and_it_is_said() {
    let mut stage = stage(42, 0).await;
    stage.until("the first three pods", CALM, |s| s.settled("0", 3)).await;
    stage.change(&json!({"spec": {"drain": {"quietSeconds": 1}}}));
    replace(&stage.world, json!({}));
    stage.kill_the_operator().await;
    stage.change(&template("1"));
    let limits = Limits { serving: 3, pods: 4, kills: false };
    let warned = |s: &Stage| condition(&s.app().unwrap_or_default(), "Warning")["reason"] == "TokenRefused";
    stage.until("the Warning", limits, warned).await;
    stage.until("the rollout", limits, |s| s.settled("1", 3)).await;
    stage.lost_nothing();
    stage.change(&template("2"));
    stage.until("a rollout with the new keys", limits, |s| s.settled("2", 3)).await;
    assert!(!warned(&stage));
    stage.lost_nothing();
}

/// P8: anyone may drain a pod that was made without keys, for as long as it lives. An API server that errs as a leader starts must not be enough for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_revision_waits_for_keys_that_cannot_be_read_just_now() {
    let mut stage = stage_where(44, 0, 2).await;
    stage.until("the first three pods", CALM, |s| s.settled("0", 3)).await;
    assert_eq!(stage.world.open().failing_secret_reads, 0);
    assert_eq!(given(&stage, "0").len(), 2, "its pods verify nobody");
    assert_ne!(condition(&stage.app().unwrap(), "Warning")["status"], "True");
    stage.lost_nothing();
}

/// P8: it does not wait for ever, and what it was made without is told, with what helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_made_without_keys_says_so_until_one_with_keys_is_rolled_out() {
    let mut stage = stage_where(45, 0, u32::MAX).await;
    let status = |s: &Stage| s.app().unwrap_or_default()["status"].clone();
    let waits = |s: &Stage| {
        let waiting_for = status(s)["waitingFor"].as_str().unwrap_or_default().to_owned();
        waiting_for.contains("for the drain keys")
            && waiting_for.contains("etcdserver: request timed out")
            && status(s)["phase"] == "Rolling"
            && s.world.list("deployments").is_empty()
    };
    stage.until("it waits, and says for what", CALM, waits).await;
    stage.until("the pods are made all the same", CALM, |s| s.settled("0", 3)).await;
    assert!(given(&stage, "0").is_empty());
    let warning = |s: &Stage| condition(&s.app().unwrap(), "Warning").clone();
    let said = warning(&stage);
    assert_eq!((&said["status"], &said["reason"]), (&json!("True"), &json!("DoesNotVerify")));
    let words = said["message"].as_str().unwrap();
    assert!(words.contains("roll again by a change of spec.template"), "{words}");
    stage.world.open().failing_secret_reads = 0;
    // By a process that never saw the failures, the Warning is told as well.
    stage.kill_the_operator().await;
    stage.change(&template("1"));
    stage.until("a rollout", CALM, |s| s.settled("1", 3)).await;
    assert_eq!(given(&stage, "1").len(), 2);
    stage.until("nothing to warn of", CALM, |s| warning(s)["status"] != "True").await;
    stage.lost_nothing();
}

/// P1, P5: the way back to a release without tokens. New pods verify nobody, those that do are still told with tokens, and none is restarted for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_verify_are_told_with_tokens_while_new_ones_no_longer_do() {
    let mut stage = stage(46, 0).await;
    stage.until("the first three pods", CALM, |s| s.settled("0", 3)).await;
    let before = stage.world.list("pods").len();
    assert_eq!(given(&stage, "0").len(), 2);
    stage.tokens = Some(Tokens { secret: secret(), verify: false });
    stage.kill_the_operator().await;
    assert_eq!(stage.world.list("pods").len(), before);
    // As long as it is busy, an old pod is ended by nobody: its door is closed by what it is told, or not at all.
    let tasks = stage.hold_a_task_in_each();
    stage.change(&template("1"));
    stage.until("an old pod has closed its door", CALM, |s| !s.closed().is_empty()).await;
    drop(tasks);
    stage.until("the rollout", CALM, |s| s.settled("1", 3)).await;
    assert!(given(&stage, "1").is_empty(), "new pods are to verify nobody");
    let said = condition(&stage.app().unwrap(), "Warning").clone();
    assert_ne!(said["status"], "True", "that was asked for: {said}");
    stage.change(&template("2"));
    stage.until("and one without any keys", CALM, |s| s.settled("2", 3)).await;
    stage.lost_nothing();
}
