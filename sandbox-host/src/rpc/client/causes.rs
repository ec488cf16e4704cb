//! Finding out, where a call is made, to which request and operation it belongs: the spans around it
//! say so in their fields `request_id` and `operation_id`, which [`CauseLayer`] keeps.
//!
//! ```text
//!  span request{request_id} ─► span operation{operation_id} ─► call: both go with it
//! ```

use std::fmt;

use tracing::{
    Dispatch, Span, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

use crate::rpc::cause::Cause;

/// Keeps the IDs of spans, for calls to a [`RemoteHost`](super::RemoteHost). It belongs on a
/// [`Registry`]; without it, calls are logged under IDs of their own on the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct CauseLayer;

const FIELDS: [&str; 2] = ["request_id", "operation_id"];

impl Visit for Cause {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "request_id" => self.request_id = Some(value.to_owned()),
            "operation_id" => self.operation_id = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if FIELDS.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for CauseLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let fields = attributes.metadata().fields();
        if !FIELDS.iter().any(|name| fields.field(name).is_some()) {
            return;
        }
        let mut cause = Cause::default();
        attributes.record(&mut cause);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(cause);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(cause) = span.extensions_mut().get_mut::<Cause>()
        {
            values.record(cause);
        }
    }
}

/// What the spans around this point say; nothing where nobody keeps that.
pub(super) fn current() -> Cause {
    let found = Span::current().with_subscriber(|(id, dispatch)| around(id, dispatch));
    found.unwrap_or_default()
}

fn around(id: &Id, dispatch: &Dispatch) -> Cause {
    let span = dispatch
        .downcast_ref::<Registry>()
        .and_then(|registry| registry.span(id));
    let mut cause = Cause::default();
    for span in span.iter().flat_map(SpanRef::scope) {
        let extensions = span.extensions();
        let Some(found) = extensions.get::<Cause>() else {
            continue;
        };
        // The nearest counts.
        let Cause {
            request_id,
            operation_id,
        } = found;
        cause.request_id = cause.request_id.or_else(|| request_id.clone());
        cause.operation_id = cause.operation_id.or_else(|| operation_id.clone());
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    fn cause(request_id: Option<&str>, operation_id: Option<&str>) -> Cause {
        Cause {
            request_id: request_id.map(str::to_owned),
            operation_id: operation_id.map(str::to_owned),
        }
    }

    #[test]
    fn r47_a_call_s_cause_is_what_the_spans_around_it_say() {
        let subscriber = tracing_subscriber::registry().with(CauseLayer);
        let _guard = tracing::subscriber::set_default(subscriber);
        assert_eq!(current(), Cause::default());
        let request = info_span!(
            "request",
            request_id = "mine",
            operation_id = tracing::field::Empty
        );
        let _request = request.enter();
        assert_eq!(current(), cause(Some("mine"), None));
        request.record("operation_id", "op-1");
        let _other = info_span!("step", file = "x").entered();
        assert_eq!(current(), cause(Some("mine"), Some("op-1")));
        let _inner = info_span!("operation", operation_id = %"op-2").entered();
        assert_eq!(current(), cause(Some("mine"), Some("op-2")));
    }

    #[test]
    fn without_the_layer_there_is_none() {
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry());
        let _request = info_span!("request", request_id = "mine").entered();
        assert_eq!(current(), Cause::default());
    }
}
