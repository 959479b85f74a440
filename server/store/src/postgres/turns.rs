//! Whose turn it is: how many tasks of each line are to be claimed, so that each queue, and in it each key, gets its fair part of
//! the free places. Pure; [`claim`](super::claim) looks for the lines, and leases by this.

use std::collections::HashMap;
use std::sync::Arc;

/// Tasks of one queue, one key and one priority, of which some are due.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) queue: Arc<str>,
    /// The key, or empty.
    pub(super) lane: Arc<str>,
    /// The negative of the priority.
    pub(super) rank: i32,
}

/// So many of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) line: Line,
    pub(super) most: usize,
}

/// One queue's part in a claim.
#[derive(Debug)]
struct QueuePart {
    name: Arc<str>,
    running: usize,
    served: u64,
    room: usize,
    /// The key that had its turn last.
    after: Option<Arc<str>>,
    keys: Vec<KeyPart>,
}

#[derive(Debug)]
struct KeyPart {
    lane: Arc<str>,
    running: usize,
    room: usize,
    /// The highest priority first.
    ranks: Vec<i32>,
}

/// What is known of a queue that has something due.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// Tasks of it that run in this process.
    pub(super) running: usize,
    /// When it last had its turn.
    pub(super) served: u64,
    /// So many may start.
    pub(super) room: usize,
    /// The key of it that had its turn last.
    pub(super) after: Option<Arc<str>>,
}

/// A claim's parts: all lines in which something is due.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<QueuePart>);

impl Turns {
    /// Another line. Those of a queue come together, its keys in their order, and a key's lines by priority.
    pub(super) fn add(&mut self, line: Line, queue: Standing, key: (usize, usize)) {
        let Line { queue: name, lane, rank } = line;
        if self.0.last().is_none_or(|last| last.name != name) {
            let Standing { running, served, room, after } = queue;
            self.0.push(QueuePart { name, running, served, room, after, keys: Vec::new() });
        }
        let Some(part) = self.0.last_mut() else { return };
        match part.keys.last_mut() {
            Some(last) if last.lane == lane => last.ranks.push(rank),
            _ => part.keys.push(KeyPart { lane, running: key.0, room: key.1, ranks: vec![rank] }),
        }
    }

    /// Shares out so many places: each to the queue that has the fewest of this process, and in it to the key that has the fewest. Of
    /// several keys it is the next one's turn: the first after the one that was last, or the first of all.
    pub(super) fn share(&mut self, places: usize) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        let mut at: HashMap<Line, usize> = HashMap::new();
        for _ in 0..places {
            let open = self.0.iter_mut().filter(|part| part.room > 0 && part.keys.iter().any(KeyPart::open));
            let Some(part) = open.min_by_key(|part| (part.running, part.served)) else { break };
            let after = part.after.take();
            let behind = |key: &KeyPart| after.as_ref().is_some_and(|after| key.lane <= *after);
            let open = part.keys.iter_mut().filter(|key| key.open());
            let Some(key) = open.min_by_key(|key| (key.running, behind(key))) else { break };
            part.after = Some(key.lane.clone());
            let Some(rank) = key.ranks.first() else { break };
            let line = Line { queue: part.name.clone(), lane: key.lane.clone(), rank: *rank };
            let place = *at.entry(line.clone()).or_insert_with(|| {
                shares.push(Share { line, most: 0 });
                shares.len() - 1
            });
            shares[place].most += 1;
            key.running += 1;
            key.room = key.room.saturating_sub(1);
            part.running += 1;
            part.room = part.room.saturating_sub(1);
        }
        shares
    }

    /// The key of each queue that had its turn last.
    pub(super) fn last(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().filter_map(|part| Some((&part.name, part.after.as_ref()?)))
    }

    /// Of a share so many were found: what was not goes back, and a line that had too few has no more.
    pub(super) fn found(&mut self, share: &Share, found: usize) {
        let back = share.most.saturating_sub(found);
        if back == 0 {
            return;
        }
        let Some(part) = self.0.iter_mut().find(|part| part.name == share.line.queue) else { return };
        part.running -= back;
        part.room = part.room.saturating_add(back);
        let Some(key) = part.keys.iter_mut().find(|key| key.lane == share.line.lane) else { return };
        key.running -= back;
        key.room = key.room.saturating_add(back);
        key.ranks.retain(|rank| *rank != share.line.rank);
    }
}

impl KeyPart {
    fn open(&self) -> bool {
        self.room > 0 && !self.ranks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = usize::MAX;

    fn line(queue: &str, lane: &str, rank: i32) -> Line {
        Line { queue: queue.into(), lane: lane.into(), rank }
    }

    fn turns(lines: &[(&str, &str, i32, usize)], room: usize, per_key: usize) -> Turns {
        let mut turns = Turns::default();
        for (queue, lane, rank, running) in lines {
            let standing = Standing { running: *running, served: 0, room, after: None };
            turns.add(line(queue, lane, *rank), standing, (0, per_key));
        }
        turns
    }

    fn shared(turns: &mut Turns, places: usize) -> Vec<(String, i32, usize)> {
        let shares = turns.share(places);
        shares
            .iter()
            .map(|share| (format!("{}{}", share.line.queue, share.line.lane), share.line.rank, share.most))
            .collect()
    }

    #[test]
    fn places_go_to_those_who_have_the_fewest() {
        let mut turns = turns(&[("flood", "", 0, 9), ("b", "", 0, 0), ("c", "", 0, 7)], MANY, MANY);
        let expected = [("b".to_owned(), 0, 8), ("c".to_owned(), 0, 1)];
        assert_eq!(shared(&mut turns, 9), expected);
    }

    #[test]
    fn what_one_does_not_need_goes_to_the_others() {
        let mut turns = turns(&[("a", "", -5, 0), ("a", "", 0, 0), ("b", "", 0, 0)], MANY, MANY);
        let first = turns.share(10);
        assert_eq!(first.iter().map(|share| share.most).collect::<Vec<_>>(), [5, 5]);
        // b has one, and a has three of its highest priority.
        turns.found(&first[0], 3);
        turns.found(&first[1], 1);
        assert_eq!(shared(&mut turns, 6), [("a".to_owned(), 0, 6)]);
    }

    #[test]
    fn of_keys_that_have_as_few_the_next_has_its_turn() {
        let lines = [("q", "x", 0, 0), ("q", "y", 0, 0), ("q", "z", 0, 0)];
        let mut last = Vec::new();
        for _ in 0..4 {
            let mut turns = turns(&lines, MANY, MANY);
            turns.0[0].after = last.last().cloned();
            turns.share(2);
            last.extend(turns.last().map(|(_, key)| key.clone()));
        }
        assert_eq!(last.iter().map(|key| &**key).collect::<Vec<_>>(), ["y", "x", "z", "y"]);
    }

    #[test]
    fn keys_share_the_places_of_their_queue() {
        let lines = [("q", "", 0, 0), ("q", "x", 0, 0), ("q", "y", 0, 0)];
        let three = |each| ["q", "qx", "qy"].map(|name| (name.to_owned(), 0, each));
        assert_eq!(shared(&mut turns(&lines, MANY, MANY), 6), three(2));
        assert_eq!(shared(&mut turns(&lines, 3, MANY), 6), three(1), "the queue has three places");
        assert_eq!(shared(&mut turns(&lines, MANY, 1), 6), three(1), "each key has one");
    }
}
