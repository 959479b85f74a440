use super::*;

fn app(name: &str) -> AppRef {
    AppRef::new(name).within("n")
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_stuck_only_if_none_of_its_calls_ends() {
    let pulse = Pulse::default();
    let long = async {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            moved();
            assert_eq!(pulse.stuck(), None);
        }
        tokio::time::sleep(STUCK + Duration::from_secs(1)).await;
        assert!(pulse.stuck().unwrap().contains("does not end"));
    };
    pulse.of(&app("a"), long).await;
    assert_eq!(pulse.stuck(), None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_others_is_not_stuck_while_they_move() {
    let pulse = Pulse::default();
    pulse.asked(&app("waits"));
    for n in 0..100 {
        pulse.of(&app(&format!("a{n}")), tokio::time::sleep(Duration::from_secs(10))).await;
        assert_eq!(pulse.stuck(), None);
    }
    tokio::time::sleep(STUCK + Duration::from_secs(1)).await;
    assert!(pulse.stuck().unwrap().contains("waits"));
    pulse.forget(&app("waits"));
    assert_eq!(pulse.stuck(), None);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_dropped_in_its_midst_is_over() {
    let pulse = Pulse::default();
    let a = app("a");
    let plan = pulse.of(&a, std::future::pending::<()>());
    let _dropped = tokio::time::timeout(Duration::from_secs(1), plan).await;
    tokio::time::sleep(STUCK * 2).await;
    assert_eq!(pulse.stuck(), None);
}
