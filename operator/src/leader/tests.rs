use super::*;

#[test]
fn the_default_durations_leave_room_for_a_request() {
    assert_eq!(Timing::default().check(Duration::from_secs(7)), Ok(()));
    assert!(Timing::default().check(Duration::from_secs(8)).is_err());
    let hasty = Timing { retry_period: Duration::from_secs(4), ..Timing::default() };
    assert!(hasty.check(Duration::from_secs(1)).is_err());
}

#[test]
fn a_term_lasts_until_its_end_and_not_a_moment_longer() {
    let term = Term::default();
    assert!(!term.lasts(Duration::ZERO));
    term.extend(Duration::from_secs(7));
    assert!(term.lasts(Duration::from_nanos(6_999_999_999)));
    assert!(!term.lasts(Duration::from_secs(7)));
    term.end();
    assert!(!term.lasts(Duration::ZERO));
}
