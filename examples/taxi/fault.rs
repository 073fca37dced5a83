use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What is wrong with an instance that still runs.
#[derive(Clone, Copy, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every answer comes so much later.
    Slow(Duration),
    /// Answers 500 at once.
    Fails,
    /// Never answers.
    Hangs,
}

/// The fault of one instance, set while it runs.
#[derive(Clone, Default)]
pub struct FaultSwitch(Arc<Mutex<Fault>>);

impl FaultSwitch {
    pub fn set(&self, fault: Fault) {
        *self.0.lock().expect("nobody panics under it") = fault;
    }

    fn fault(&self) -> Fault {
        *self.0.lock().expect("nobody panics under it")
    }
}

/// Stands in front of an instance's handlers.
pub async fn apply(State(switch): State<FaultSwitch>, request: Request, next: Next) -> Response {
    match switch.fault() {
        Fault::None => {}
        Fault::Slow(more) => tokio::time::sleep(more).await,
        Fault::Fails => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Fault::Hangs => std::future::pending().await,
    }
    next.run(request).await
}
