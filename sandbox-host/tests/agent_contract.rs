//! The guest agent as it is shipped, on a unix socket instead of a VM's port.

mod agent_support;

use agent_support::TestAgent;
use sandbox_core::guest::Guest;

async fn with_guest(test: impl AsyncFnOnce(&dyn Guest)) {
    let agent = TestAgent::start().await;
    test(&agent.client).await;
}

sandbox_host::guest_contract_tests!(with_guest);
