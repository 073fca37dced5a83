//! What every registry must do, whatever its wire format: a matrix of behaviours and registries, against the real
//! servers. How to add a registry: `tests/rows/mod.rs`. What stops a server is in `registry_chaos.rs`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod rows;
mod watching;

use std::time::Duration;

use buttress::clock;
use buttress::discovery::{
    ErrorKind, Freshness, Instance, Registry, Renewal, Resolver, Status, Watch,
};
use rows::{Fault, Lapsed, Row};
use watching::{PATIENCE, TTL, Watching, is_one, left_out, unique, until};

/// A module for each registry, with a test for each behaviour in it.
macro_rules! matrix {
    ($($row:ident)*) => { $(mod $row { behaviours!($row); })* };
}

macro_rules! behaviours {
    ($row:ident) => {
        behaviours!($row:
            the_first_answer_is_all_there_is
            an_instance_that_comes_changes_or_goes_is_known_in_time
            what_flaps_ends_as_it_is
            an_outage_changes_nothing
            a_registry_that_forgets_is_doubted
            answers_that_are_cut_short_are_no_answers
            garbage_is_no_answer
            slow_answers_are_waited_for
            a_denial_is_an_error_and_no_empty_list
            what_registers_comes_changes_and_goes
            what_flaps_is_told_in_order_and_ends_as_it_is
            a_heartbeat_tells_the_status
            an_instance_that_was_taken_out_behind_its_back_registers_again
            the_case_of_a_services_name_does_not_matter
            an_instance_that_is_not_renewed_lapses
        );
    };
    ($row:ident: $($behaviour:ident)*) => { $(
        #[tokio::test]
        async fn $behaviour() {
            if let Some(row) = <crate::rows::$row::Row as crate::Row>::start().await {
                super::$behaviour(row).await;
            }
        }
    )* };
}

matrix!(consul dns dns_over_tcp etcd eureka file kubernetes memory zookeeper);

// ---- As a client sees it, whatever happens between it and the registry ----

async fn the_first_answer_is_all_there_is<R: Row>(row: R) {
    let (service, all) = three::<R>();
    for instance in &all {
        row.write(&service, instance).await;
    }
    let watch = watch(&row, &service);
    names(&watch, &all, R::INTERVAL + SLACK).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

async fn an_instance_that_comes_changes_or_goes_is_known_in_time<R: Row>(row: R) {
    let (service, mut all, watch) = watched(&row).await;
    let in_time = R::INTERVAL + SLACK;
    let fourth = R::told(Instance::new(unique("d"), "10.0.0.4", 80));
    row.write(&service, &fourth).await;
    all.push(fourth);
    names(&watch, &all, in_time).await;

    all[1] = R::told(all[1].clone().weight(7).metadata("version", "9"));
    row.write(&service, &all[1]).await;
    names(&watch, &all, in_time).await;

    row.remove(&service, &all.remove(0).id).await;
    names(&watch, &all, in_time).await;
}

async fn what_flaps_ends_as_it_is<R: Row>(row: R) {
    let (service, mut all, watch) = watched(&row).await;
    for weight in 10..30 {
        all[0] = R::told(all[0].clone().weight(weight));
        if weight % 3 == 0 {
            row.remove(&service, &all[0].id).await;
        }
        row.write(&service, &all[0]).await;
    }
    names(&watch, &all, R::INTERVAL + SLACK).await;
}

async fn an_outage_changes_nothing<R: Row>(row: R) {
    nothing_comes_of(row, &[Fault::Cut]).await;
}

async fn answers_that_are_cut_short_are_no_answers<R: Row>(row: R) {
    // Within a head, about its end, and within a body.
    let lengths = [40, 250, 700].map(Fault::Partial);
    nothing_comes_of(row, &lengths).await;
}

async fn garbage_is_no_answer<R: Row>(row: R) {
    nothing_comes_of(row, &[Fault::Garbage]).await;
}

/// Whatever a client hears during such `faults`, it neither loses nor invents an instance, and once they are over it
/// knows again what there is.
async fn nothing_comes_of<R: Row>(row: R, faults: &[Fault]) {
    let (service, mut all, watch) = watched(&row).await;
    let fourth = R::told(Instance::new(unique("d"), "10.0.0.4", 80));
    for (weight, &fault) in (2..).zip(faults) {
        if !row.fault(fault).await {
            return left_out(&format!("{fault:?} of {}", R::NAME));
        }
        // Something to tell, which does not come through whole.
        let fourth = R::told(fourth.clone().weight(weight));
        row.write(&service, &fourth).await;
        let began = clock::now();
        while clock::now() - began < A_WHILE + R::SILENCE {
            let snapshot = watch.snapshot();
            let known: Vec<_> = snapshot.live().iter().map(|one| (**one).clone()).collect();
            let as_it_was = known.iter().filter(|one| one.id != fourth.id);
            assert!(as_it_was.eq(&all), "{fault:?}: {known:?}");
            clock::sleep(Duration::from_millis(20)).await;
        }
        if fault == Fault::Cut {
            assert!(matches!(watch.freshness(), Freshness::Stale { .. }));
        }
    }
    row.fault(Fault::None).await;
    all.push(R::told(
        fourth.weight(1 + u32::try_from(faults.len()).unwrap()),
    ));
    names(&watch, &all, RECOVERED).await;

    // As good as new.
    all[3] = R::told(all[3].clone().weight(9));
    row.write(&service, &all[3]).await;
    names(&watch, &all, RECOVERED).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

async fn a_registry_that_forgets_is_doubted<R: Row>(row: R) {
    let (service, all, watch) = watched(&row).await;
    row.forget(&service).await;
    let forgotten = until(R::INTERVAL + SLACK, || watch.snapshot().live().is_empty());
    assert!(forgotten.await, "{:?}", watch.snapshot());
    assert_eq!(watch.snapshot().held().len(), all.len());
    assert_eq!(watch.resolved().await.unwrap().instances().len(), all.len());

    row.write(&service, &all[1]).await;
    names(&watch, &all[1..2], R::INTERVAL + SLACK).await;
    assert_eq!(watch.snapshot().held().len(), all.len() - 1);
}

async fn slow_answers_are_waited_for<R: Row>(row: R) {
    let late = Duration::from_millis(1500);
    let (service, mut all) = three::<R>();
    for instance in &all {
        row.write(&service, instance).await;
    }
    if !row.fault(Fault::Slow(late)).await {
        return left_out(&format!("slow answers of {}", R::NAME));
    }
    let watch = watch(&row, &service);
    names(&watch, &all, 2 * late + R::INTERVAL + SLACK).await;
    all[2] = R::told(all[2].clone().weight(9));
    row.write(&service, &all[2]).await;
    // The answer under way, and the one that knows of it.
    names(&watch, &all, 2 * late + R::INTERVAL + SLACK).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

async fn a_denial_is_an_error_and_no_empty_list<R: Row>(_row: R) {
    let Some(denied) = R::denied().await else {
        return;
    };
    let service = unique("orders");
    let error = Watching::start(&denied, &service).error().await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let refused = Resolver::new(denied).watch(&*service).resolved().await;
    let refused = refused.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains(&error.to_string()), "{cause}");
}

// ---- As an instance sees it that registers itself ----

async fn what_registers_comes_changes_and_goes<R: Row>(row: R) {
    if !R::REGISTERS {
        return;
    }
    let (registry, service) = (row.registry(), unique("orders"));
    let mut watching = Watching::start(&registry, &service);
    // An unknown service has no instances.
    watching.until(|instances| instances.is_empty()).await;

    let a = Instance::new(unique("a"), "10.0.0.1", 8443)
        .secure(true)
        .zone("z1")
        .weight(3)
        .metadata("version", "7");
    registry.register(&service, &a, TTL).await.unwrap();
    watching.until(|instances| *instances == [a.clone()]).await;

    let b = Instance::new(unique("b"), "::1", 80);
    registry.register(&service, &b, TTL).await.unwrap();
    watching
        .until(|instances| *instances == [a.clone(), b.clone()])
        .await;

    let a = a.weight(9).metadata("version", "8");
    registry.register(&service, &a, TTL).await.unwrap();
    watching
        .until(|instances| instances.contains(&a) && instances.len() == 2)
        .await;

    registry.deregister(&service, &a).await.unwrap();
    watching.until(|instances| *instances == [b.clone()]).await;
    registry.deregister(&service, &b).await.unwrap();
    watching.until(|instances| instances.is_empty()).await;
    registry
        .deregister(&service, &b)
        .await
        .expect("one that is not there is no error");
}

async fn what_flaps_is_told_in_order_and_ends_as_it_is<R: Row>(row: R) {
    if !R::REGISTERS {
        return;
    }
    let (registry, service) = (row.registry(), unique("orders"));
    let mut watching = Watching::start(&registry, &service);
    watching.until(|instances| instances.is_empty()).await;
    let weighing = |weight| Instance::new("a", "10.0.0.1", 80).weight(weight);
    for weight in 1..=50 {
        let instance = weighing(weight);
        registry.register(&service, &instance, TTL).await.unwrap();
        if weight % 3 == 0 {
            registry.deregister(&service, &instance).await.unwrap();
        }
    }
    let mut weights = Vec::new();
    let ends = watching.until(|instances| {
        weights.extend(instances.iter().map(|one| one.weight));
        *instances == [weighing(50)]
    });
    ends.await;
    assert!(weights.is_sorted(), "{weights:?}");
    registry.deregister(&service, &weighing(50)).await.unwrap();
}

async fn a_heartbeat_tells_the_status<R: Row>(row: R) {
    if !R::REGISTERS {
        return;
    }
    let (registry, service) = (row.registry(), unique("orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80).status(Status::Starting);
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&registry, &service);
    watching.until(is_one(R::seen(Status::Starting))).await;
    use Status::{Down, OutOfService, Up};
    for status in [Up, OutOfService, Up, Down, Up] {
        let renewal = registry.renew(&service, &instance, status).await;
        assert_eq!(renewal.unwrap(), Renewal::Renewed);
        watching.until(is_one(R::seen(status))).await;
    }
    registry.deregister(&service, &instance).await.unwrap();
}

async fn an_instance_that_was_taken_out_behind_its_back_registers_again<R: Row>(row: R) {
    if !R::REGISTERS {
        return;
    }
    let (registry, service) = (row.registry(), unique("orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    let renew = async || {
        let renewal = registry.renew(&service, &instance, Status::Up).await;
        renewal.unwrap()
    };
    registry.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(renew().await, Renewal::Renewed);
    row.remove(&service, &instance.id).await;
    assert_eq!(renew().await, Renewal::Unknown);
    registry.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(renew().await, Renewal::Renewed);
    registry.deregister(&service, &instance).await.unwrap();
}

async fn the_case_of_a_services_name_does_not_matter<R: Row>(row: R) {
    if !R::REGISTERS {
        return;
    }
    let (registry, service) = (row.registry(), unique("Orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&registry, &service.to_ascii_lowercase());
    watching.until(is_one(Status::Up)).await;
    registry.deregister(&service, &instance).await.unwrap();
}

async fn an_instance_that_is_not_renewed_lapses<R: Row>(row: R) {
    if !R::REGISTERS || R::LAPSED == Lapsed::Stays {
        return;
    }
    let (registry, service) = (row.registry(), unique("orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    let ttl = Duration::from_secs(1);
    registry.register(&service, &instance, ttl).await.unwrap();
    let mut watching = Watching::start(&registry, &service);
    watching.until(is_one(Status::Up)).await;
    let renewal = match R::LAPSED {
        Lapsed::Down => {
            watching.until(is_one(Status::Down)).await;
            Renewal::Renewed
        }
        _ => {
            watching.until(|instances| instances.is_empty()).await;
            Renewal::Unknown
        }
    };
    let told = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(told.unwrap(), renewal);
    if renewal == Renewal::Renewed {
        watching.until(is_one(Status::Up)).await;
    }
    registry.deregister(&service, &instance).await.unwrap();
}

/// The name of a service, and three instances for it.
fn three<R: Row>() -> (String, Vec<Instance>) {
    let instance = |id, host| Instance::new(unique(id), host, 80);
    let all = [
        instance("a", "10.0.0.1").zone("z1").weight(3),
        instance("b", "10.0.0.2").metadata("version", "7"),
        instance("c", "10.0.0.3"),
    ];
    (unique("orders"), all.map(R::told).into())
}

fn watch<R: Row>(row: &R, service: &str) -> Watch {
    Resolver::new(row.registry()).watch(service)
}

/// Three instances that the watch knows.
async fn watched<R: Row>(row: &R) -> (String, Vec<Instance>, Watch) {
    let (service, all) = three::<R>();
    for instance in &all {
        row.write(&service, instance).await;
    }
    let watch = watch(row, &service);
    names(&watch, &all, PATIENCE).await;
    (service, all, watch)
}

/// Waits until exactly `expected` are known.
async fn names(watch: &Watch, expected: &[Instance], limit: Duration) {
    let is_known = || {
        let snapshot = watch.snapshot();
        snapshot.live().iter().map(|one| &**one).eq(expected)
    };
    let began = clock::now();
    let known = until(limit, is_known).await;
    let took = clock::now() - began;
    assert!(
        known,
        "after {took:?}: {:?} {:?}",
        watch.freshness(),
        watch.snapshot()
    );
}

/// What a machine that has other things to do may add to any limit.
const SLACK: Duration = Duration::from_secs(3);
/// How long a fault lasts, once it is noticed.
const A_WHILE: Duration = Duration::from_secs(3);
/// How long after a short fault a registry is asked again: the waits between attempts grow to three times the last.
const RECOVERED: Duration = Duration::from_secs(40);
