//! Random worlds, each from one seed: whatever happens, the broker does what the reference model says.

use ipc_tests::generator::Action;
use ipc_tests::simulation::run_all;

const STEPS: usize = 500;

#[test]
fn whatever_happens_the_broker_keeps_its_promises() {
    let coverage = run_all(1_000, 100_000, STEPS);
    eprintln!("{}", coverage.report());
    let mut wanted = Action::NAMES.to_vec();
    wanted.extend([
        "fault.datagram_lost",
        "fault.datagram_doubled",
        "fault.datagram_reordered",
        "fault.datagram_unsent",
        "datagram.ok",
        "datagram.application",
        "datagram.outcome_unknown",
        "datagram.deadline_exceeded",
        "datagram.unreachable",
        "datagram.no_such_service",
        "datagram.not_let_in",
    ]);
    let missing = coverage.missing(&wanted);
    assert!(missing.is_empty(), "never occurred: {missing:?}");
}
