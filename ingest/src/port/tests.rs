use super::*;

/// Media spec 8, row 28: names of sessions that are over cost memory, too.
#[test]
fn of_sessions_that_are_over_the_latest_are_remembered() {
    let now = Time::from_secs(1);
    let clock = Clock::new(std::time::Instant::now(), now);
    let config = Config::default();
    let mut port = Port::new(now, config, Certificate::generate(), clock, [1; 32]);
    for bits in 0..2 * MAX_REMEMBERED {
        let id = SessionId::new(bits as u128);
        port.over.push_back((now + REMEMBERED, id));
        port.forget_over();
    }
    assert_eq!(port.over.len(), MAX_REMEMBERED);
    let oldest = port.over.front().map(|(_, id)| *id);
    assert_eq!(oldest, Some(SessionId::new(MAX_REMEMBERED as u128)));
    port.tick(now + REMEMBERED);
    assert!(port.over.is_empty());
}
