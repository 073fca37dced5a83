use std::time::Duration;

use ::http::{Extensions, HeaderMap, StatusCode};
use ::tonic::{Code, Status};
use http_body::Body;

use super::PUSHBACK;
use crate::transport::http::{self, ReplayBody};

/// A gRPC request that may be sent again: as a generated client takes it, or as it goes over HTTP.
pub trait GrpcRequest: Sized {
    /// A copy with the same metadata and extensions, or `None` if it can be sent only once.
    fn copy(&self) -> Option<Self>;

    /// Whether it can be sent again, now that it has been sent: all of a body may not have been kept. By default it can.
    fn can_copy(&self) -> bool {
        true
    }

    /// Its metadata, as it goes over HTTP.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// What the layers inside are told.
    fn extensions_mut(&mut self) -> &mut Extensions;
}

impl<M: Clone> GrpcRequest for ::tonic::Request<M> {
    fn copy(&self) -> Option<Self> {
        let (metadata, extensions) = (self.metadata().clone(), self.extensions().clone());
        Some(Self::from_parts(
            metadata,
            extensions,
            self.get_ref().clone(),
        ))
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.metadata_mut().as_mut()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

/// The body of a generated client is no such; it can be put into a [`ReplayBody`].
impl<B: Clone> GrpcRequest for ::http::Request<B> {
    fn copy(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

impl<B: Body> GrpcRequest for ::http::Request<ReplayBody<B>> {
    fn copy(&self) -> Option<Self> {
        http::copy(self)
    }

    fn can_copy(&self) -> bool {
        self.body().can_replay()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

/// A gRPC response: as a generated client gives it, or as it comes over HTTP.
#[diagnostic::on_unimplemented(
    message = "no gRPC status can be looked for in `{Self}`",
    note = "let the service answer with a `tonic::Response` or an `http::Response`"
)]
pub trait GrpcResponse {
    /// The failure in its head, if there is one. Of a response over HTTP it is what stands for the status where nothing
    /// follows; the status of one that has a body comes after that, when every layer is done.
    fn failure(&self) -> Option<Failure>;

    /// What the caller is told. By default it has no place for that.
    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        None
    }
}

/// A generated client gives a response to what succeeded, and else a [`Status`].
impl<M> GrpcResponse for ::tonic::Response<M> {
    fn failure(&self) -> Option<Failure> {
        None
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        Some(self.extensions_mut())
    }
}

impl<B> GrpcResponse for ::http::Response<B> {
    fn failure(&self) -> Option<Failure> {
        let headers = self.headers();
        let code = match headers.get(GRPC_STATUS) {
            Some(code) => Code::from_bytes(code.as_bytes()),
            None => of_http(self.status()),
        };
        (code != Code::Ok).then(|| Failure::new(code, headers))
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        Some(self.extensions_mut())
    }
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status code.
    pub code: Code,
    /// What the server says about trying again, in `grpc-retry-pushback-ms`.
    pub pushback: Option<Pushback>,
}

/// What a server says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not before so long.
    After(Duration),
    /// Not at all. It is also what stands for a value that cannot be read.
    Never,
}

impl Failure {
    fn new(code: Code, headers: &HeaderMap) -> Self {
        let pushback = Pushback::read(headers);
        Self { code, pushback }
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        Self::new(status.code(), status.metadata().as_ref())
    }
}

impl Pushback {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(PUSHBACK).iter();
        let value = values.next()?;
        let millis = value.to_str().ok().and_then(|it| it.parse::<i32>().ok());
        Some(match millis.map(u64::try_from) {
            Some(Ok(millis)) if values.next().is_none() => {
                Self::After(Duration::from_millis(millis))
            }
            _ => Self::Never,
        })
    }
}

/// What a client makes of an HTTP status without a gRPC one, from a proxy on the way
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>). The status of a 200 comes later.
fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::OK => Code::Ok,
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

const GRPC_STATUS: &str = "grpc-status";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushback_that_is_negative_unreadable_or_said_twice_means_never() {
        let after = |millis| Some(Pushback::After(Duration::from_millis(millis)));
        let never = Some(Pushback::Never);
        for (values, expected) in [
            (&[][..], None),
            (&["0"], after(0)),
            (&["1500"], after(1500)),
            (&["2147483647"], after(2_147_483_647)),
            (&["2147483648"], never),
            (&["-1"], never),
            (&["soon"], never),
            (&["1.5"], never),
            (&[""], never),
            (&["1", "2"], never),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PUSHBACK, value.parse().unwrap());
            }
            assert_eq!(Pushback::read(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn a_failure_is_read_from_the_head_of_a_response_over_http() {
        for (http, grpc, expected) in [
            (200, None, None),
            (200, Some("0"), None),
            (200, Some("14"), Some(Code::Unavailable)),
            (200, Some("no code"), Some(Code::Unknown)),
            (503, None, Some(Code::Unavailable)),
            (503, Some("5"), Some(Code::NotFound)),
            (418, None, Some(Code::Unknown)),
        ] {
            let mut response = ::http::Response::builder().status(http);
            if let Some(code) = grpc {
                response = response.header(GRPC_STATUS, code);
            }
            let failure = response.body(()).unwrap().failure();
            assert_eq!(failure.map(|it| it.code), expected, "{http} {grpc:?}");
        }
    }

    #[test]
    fn a_copy_of_a_request_has_its_metadata_and_its_extensions() {
        let mut request = ::tonic::Request::new("message");
        request
            .metadata_mut()
            .insert("tenant", "a".parse().unwrap());
        request.extensions_mut().insert(7_u8);
        let copy = request.copy().unwrap();
        assert_eq!(*copy.get_ref(), "message");
        assert_eq!(copy.metadata().get("tenant").unwrap(), "a");
        assert_eq!(copy.extensions().get(), Some(&7_u8));
    }
}
