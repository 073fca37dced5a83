use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use buttress::BoxError;
use buttress::algo::Rng;
use buttress::rng::ThreadRng;
use serde::{Deserialize, Serialize};

use crate::bookings::Bookings;
use crate::calls::{Calls, path_of};
use crate::prices::Prices;
use crate::stats::Path;

/// Knows the passengers.
pub fn passengers() -> Router {
    let passenger = |UrlPath(id): UrlPath<u64>| async move {
        work().await;
        Json(Passenger {
            id,
            name: format!("Passenger {id}"),
        })
    };
    Router::new().route("/passengers/{id}", get(passenger))
}

/// Says what a trip costs.
pub fn pricing() -> Router {
    let price = |UrlPath(km): UrlPath<u64>| async move {
        work().await;
        Json(Price {
            cents: 350 + 120 * km,
        })
    };
    Router::new().route("/prices/{km}", get(price))
}

/// Sends messages to passengers.
pub fn notifications() -> Router {
    let notify = |Json(_): Json<Message>| async {
        work().await;
        StatusCode::ACCEPTED
    };
    Router::new().route("/notifications", post(notify))
}

/// Books trips: asks who the passenger is and what it costs, and lets the passenger know.
pub fn trips(app: Trips) -> Router {
    Router::new()
        .route("/trips", post(book))
        .with_state(Arc::new(app))
}

/// What an instance of trip management holds.
pub struct Trips {
    pub calls: Calls,
    pub prices: Prices,
    pub bookings: Bookings,
}

async fn book(
    State(app): State<Arc<Trips>>,
    headers: HeaderMap,
    Json(wanted): Json<TripRequest>,
) -> Result<Json<Trip>, (StatusCode, String)> {
    let path = path_of(&headers);
    let unavailable = |error: BoxError| (StatusCode::BAD_GATEWAY, error.to_string());
    let passenger = app.passenger(path, wanted.passenger).await;
    let passenger = passenger.map_err(unavailable)?;
    let price = app.prices.price(path, wanted.km).await;
    let price = price.map_err(unavailable)?;
    let trip = Trip {
        id: wanted.id,
        passenger: passenger.name,
        cents: price.cents,
    };
    // A call that is tried again finds its booking made, and the message on its way unless its process was killed.
    if app.bookings.book(&trip.id) {
        app.notify(path, &trip);
    }
    Ok(Json(trip))
}

impl Trips {
    /// Request and response.
    async fn passenger(&self, path: Path, id: u64) -> Result<Passenger, BoxError> {
        let url = format!("http://passengers/passengers/{id}");
        Ok(self.calls.get(path, url).await?.json().await?)
    }

    /// One way: the trip does not wait for it.
    fn notify(&self, path: Path, trip: &Trip) {
        let (calls, key) = (self.calls.clone(), format!("{}-booked", trip.id));
        let message = Message {
            text: format!("{}, your taxi is on its way", trip.passenger),
        };
        let begun = calls.stats.message(path);
        tokio::spawn(async move {
            let url = "http://notifications/notifications";
            let sent = calls.post(path, url, &key, &message).await;
            begun.end(sent.is_ok());
        });
    }
}

#[derive(Serialize, Deserialize)]
pub struct TripRequest {
    pub id: String,
    pub passenger: u64,
    pub km: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Trip {
    id: String,
    passenger: String,
    cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Passenger {
    id: u64,
    name: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Price {
    pub cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Message {
    text: String,
}

/// What a database would take: 4 to 12 ms, and 30 ms once in a hundred.
async fn work() {
    let millis = match ThreadRng.below(100) {
        0 => 30,
        n => 4 + n % 9,
    };
    tokio::time::sleep(Duration::from_millis(millis as u64)).await;
}
