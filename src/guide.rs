//! The guides of `docs/`, compiled with the tests so that their examples stay true.

macro_rules! guides {
    ($($name:ident = $path:literal;)*) => {
        $(
            #[doc = include_str!(concat!("../", $path))]
            mod $name {}
        )*
    };
}

guides! {
    readme = "README.md";
    balance = "docs/balance.md";
    defaults = "docs/defaults.md";
    design = "docs/design.md";
    discovery = "docs/discovery.md";
    observe = "docs/observe.md";
    order = "docs/order.md";
    bulkhead = "docs/layers/bulkhead.md";
    chaos = "docs/layers/chaos.md";
    circuit_breaker = "docs/layers/circuit_breaker.md";
    coalesce = "docs/layers/coalesce.md";
    concurrency = "docs/layers/concurrency.md";
    fallback = "docs/layers/fallback.md";
    hedge = "docs/layers/hedge.md";
    rate_limit = "docs/layers/rate_limit.md";
    retry = "docs/layers/retry.md";
    throttle = "docs/layers/throttle.md";
    timeout = "docs/layers/timeout.md";
    consul = "docs/registries/consul.md";
    eureka = "docs/registries/eureka.md";
    file = "docs/registries/file.md";
    memory = "docs/registries/memory.md";
}
