//! What clients of numbered events heard: each stream's numbers must go up by one, from where the client began, however
//! often it was cut off. Pure.

use std::collections::{BTreeMap, HashSet};

use crate::wire::Heard;

/// What all such clients heard.
#[derive(Debug, Default)]
pub struct Events(BTreeMap<String, Client>);

#[derive(Debug, Default)]
struct Client {
    heard: Vec<Heard>,
    tasks: HashSet<String>,
}

/// A client's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The name of the pod.
    pub pod: &'a str,
    /// The stream, and the number that it goes on after.
    pub stream: &'a str,
    /// See `stream`.
    pub number: u64,
    /// Whether the server goes on where the client was.
    pub resumed: bool,
    /// Events that are no longer kept.
    pub missed: u64,
}

impl Events {
    /// A client was greeted.
    pub fn hello(&mut self, client: &str, hello: &Hello<'_>) {
        let Hello { pod, stream, number, resumed, missed } = *hello;
        let client = self.0.entry(client.to_owned()).or_default();
        let heard = match client.heard.iter_mut().rposition(|heard| heard.stream == stream) {
            Some(known) => &mut client.heard[known],
            None => {
                client.heard.push(Heard {
                    stream: stream.to_owned(),
                    from: number,
                    last: number,
                    ..Heard::default()
                });
                let last = client.heard.len() - 1;
                client.heard[last].pods.push(pod.to_owned());
                return;
            }
        };
        if !heard.pods.iter().any(|known| known == pod) {
            heard.pods.push(pod.to_owned());
        }
        heard.resumed += u64::from(resumed);
        heard.not_resumed += u64::from(!resumed);
        heard.missed += missed;
        // Where the server says it goes on, not where the client was: a difference shows.
        heard.gaps += number.saturating_sub(heard.last + missed);
        heard.last = heard.last.max(number);
    }

    /// A client was told of a task's end.
    pub fn event(&mut self, client: &str, stream: &str, number: u64, task: &str) {
        let client = self.0.entry(client.to_owned()).or_default();
        client.tasks.insert(task.to_owned());
        // An event of a stream that it was not greeted on is out of all order.
        let Some(heard) = client.heard.iter_mut().rfind(|heard| heard.stream == stream) else {
            client.heard.push(Heard { stream: stream.to_owned(), gaps: number, ..Heard::default() });
            return;
        };
        heard.events += 1;
        heard.duplicates += u64::from(number <= heard.last);
        heard.gaps += number.saturating_sub(heard.last + 1);
        heard.last = heard.last.max(number);
    }

    /// Events of this stream are no longer kept.
    pub fn missed(&mut self, client: &str, stream: &str, events: u64) {
        let client = self.0.entry(client.to_owned()).or_default();
        if let Some(heard) = client.heard.iter_mut().rfind(|heard| heard.stream == stream) {
            heard.missed += events;
            heard.last += events;
        }
    }

    /// The pod that tells of this stream said that it goes.
    pub fn farewell(&mut self, client: &str, stream: &str) {
        let client = self.0.entry(client.to_owned()).or_default();
        if let Some(heard) = client.heard.iter_mut().rfind(|heard| heard.stream == stream) {
            heard.farewells += 1;
        }
    }

    /// What each client heard.
    pub fn heard(&self) -> BTreeMap<String, Vec<Heard>> {
        self.0.iter().map(|(name, client)| (name.clone(), client.heard.clone())).collect()
    }

    /// Of these tasks, how many each client was not told of.
    pub fn unheard(&self, tasks: &[&str]) -> BTreeMap<String, u64> {
        let unheard =
            |client: &Client| tasks.iter().filter(|task| !client.tasks.contains(**task)).count() as u64;
        self.0.iter().map(|(name, client)| (name.clone(), unheard(client))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(stream: &str, number: u64, resumed: bool) -> Hello<'_> {
        Hello { pod: "p", stream, number, resumed, missed: 0 }
    }

    fn only(events: &Events) -> Heard {
        let heard = events.heard().remove("c").unwrap();
        assert_eq!(heard.len(), 1);
        heard.into_iter().next().unwrap()
    }

    #[test]
    fn numbers_that_go_up_by_one_across_connections_are_in_order() {
        let mut events = Events::default();
        events.hello("c", &hello("s", 4, false));
        events.event("c", "s", 5, "a");
        events.hello("c", &hello("s", 5, true));
        events.event("c", "s", 6, "b");
        let heard = only(&events);
        assert_eq!((heard.from, heard.last, heard.events, heard.resumed), (4, 6, 2, 1));
        assert_eq!((heard.gaps, heard.duplicates, heard.missed, heard.not_resumed), (0, 0, 0, 0));
        assert_eq!(events.unheard(&["a", "b", "x"])["c"], 1);
    }

    #[test]
    fn gaps_and_duplicates_are_counted() {
        let mut events = Events::default();
        events.hello("c", &hello("s", 0, false));
        for number in [1, 3, 3] {
            events.event("c", "s", number, "a");
        }
        // The server begins at its head, past three that the client has not heard.
        events.hello("c", &hello("s", 6, false));
        let heard = only(&events);
        assert_eq!((heard.gaps, heard.duplicates, heard.not_resumed, heard.last), (4, 1, 1, 6));
    }

    #[test]
    fn each_stream_has_numbers_of_its_own() {
        let mut events = Events::default();
        events.hello("c", &hello("s", 9, false));
        events.hello("c", &hello("t", 0, false));
        events.event("c", "t", 1, "a");
        events.farewell("c", "t");
        let heard = events.heard().remove("c").unwrap();
        assert_eq!(
            heard.iter().map(|h| (h.last, h.gaps, h.farewells)).collect::<Vec<_>>(),
            [(9, 0, 0), (1, 0, 1)]
        );
    }
}
