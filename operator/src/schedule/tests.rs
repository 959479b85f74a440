use super::*;

fn app(namespace: &str, n: usize) -> AppRef {
    AppRef::new(&format!("a{n}")).within(namespace)
}

const RESTS: Next = Next { after: Duration::from_secs(300), urgent: false, strained: false };

fn all(schedule: &mut Schedule) -> Vec<AppRef> {
    std::iter::from_fn(|| schedule.next()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_plan_at_a_time_for_an_app_and_none_is_forgotten() {
    let mut schedule = Schedule::default();
    let a = app("n", 1);
    schedule.ask(&a, false);
    schedule.ask(&a, false);
    assert_eq!(all(&mut schedule), std::slice::from_ref(&a));
    schedule.ask(&a, false);
    assert!(schedule.next().is_none(), "its plan is still under way");
    schedule.ended(&a, RESTS, Instant::now());
    assert_eq!(schedule.next(), Some(a.clone()), "it was asked for meanwhile");
    schedule.ended(&a, RESTS, Instant::now());
    assert!(schedule.next().is_none());
    tokio::time::advance(RESTS.after).await;
    assert_eq!(schedule.alarm(), Some(Instant::now()), "one alarm, that of the last plan");
    schedule.ring(Instant::now());
    assert_eq!(schedule.next(), Some(a));
    assert_eq!(schedule.alarm(), None);
}

#[tokio::test(start_paused = true)]
async fn what_moves_goes_before_what_rests_and_what_rests_is_not_starved() {
    let mut schedule = Schedule::default();
    (0..200).for_each(|n| schedule.ask(&app(&format!("n{n}"), n), false));
    (200..240).for_each(|n| schedule.ask(&app(&format!("n{n}"), n), true));
    let first: Vec<_> = (0..8).filter_map(|_| schedule.next()).collect();
    let urgent = |a: &&AppRef| a.name[1..].parse::<usize>().unwrap() >= 200;
    assert_eq!(first.iter().filter(urgent).count(), 6);
    // What waits among those that rest, and is then deleted, does not wait for them.
    schedule.ask(&app("n150", 150), true);
    let mut turn = 8;
    while let Some(next) = schedule.next() {
        if next == app("n150", 150) {
            break;
        }
        schedule.ended(&next, RESTS, Instant::now());
        turn += 1;
    }
    assert!(turn < 60, "it had its turn as number {turn}");
}

#[tokio::test(start_paused = true)]
async fn one_namespace_never_has_all_places() {
    let mut schedule = Schedule::default();
    (0..500).for_each(|n| schedule.ask(&app("slow", n), true));
    assert_eq!(all(&mut schedule).len(), OF_ONE_NAMESPACE);
    schedule.ask(&app("other", 1), false);
    assert_eq!(schedule.next(), Some(app("other", 1)));
    assert!(schedule.next().is_none());
}

#[tokio::test(start_paused = true)]
async fn fewer_plans_at_once_while_the_api_server_fails() {
    let mut schedule = Schedule::default();
    (0..500).for_each(|n| schedule.ask(&app(&format!("n{}", n % 50), n), false));
    let began = all(&mut schedule);
    assert_eq!(began.len(), PLANS);
    began.iter().for_each(|a| schedule.ended(a, Next { strained: true, ..RESTS }, Instant::now()));
    let began = all(&mut schedule);
    assert_eq!(began.len(), FEWEST);
    began.iter().for_each(|a| schedule.ended(a, RESTS, Instant::now()));
    assert_eq!(all(&mut schedule).len(), FEWEST + 2, "it comes back step by step");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_gone_leaves_nothing() {
    let mut schedule = Schedule::default();
    let a = app("n", 1);
    schedule.ask(&a, false);
    let next = schedule.next().unwrap();
    schedule.gone(&next);
    assert!(schedule.turns.is_empty() && schedule.running.is_empty() && schedule.alarms.is_empty());
    schedule.ask(&a, false);
    assert_eq!(schedule.next(), Some(a), "another one under its name");
}
