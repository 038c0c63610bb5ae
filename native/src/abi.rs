//! Envoy's side of the module: the part of its C interface that is used, declared by hand, and the hooks it calls.
//!
//! All `unsafe` of the crate is here, in the parts (`log` for the access log, `admin` for Envoy's admin interface) and in
//! `cpu`. Signatures are those of `source/extensions/dynamic_modules/abi/abi.h` in Envoy 1.40. Envoy only warns where a
//! module's version string differs from its own, and a changed signature under an old name would be undefined behaviour:
//! the control plane loads this module into exactly that Envoy.
//!
//! Every hook runs under `catch_unwind`, for a panic must not cross into C++. Deliberately absent: decisions.

#![allow(unsafe_code)] // calls of C and pointers that it gave

use crate::config::Config;
use crate::filter::{Filter, FILTER_NAME};
use crate::reply::{Reply, OWN_DETAILS};
use crate::stream::{Flow, Stream, NAMESPACE};
use std::ffi::{c_char, c_void, CStr};
use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

/// Hooks that do nothing: Envoy calls them only for what the filter has asked for, or to tell what it need not know.
macro_rules! ignore {
    ($($hook:ident($($argument:ty),*);)*) => {
        $(
            #[no_mangle]
            extern "C" fn $hook($(_: $argument),*) {}
        )*
    };
}

mod admin;
mod log;

/// The thread of Envoy's that serves nothing: it may wait.
static MAIN_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// The interface version that Envoy 1.40 speaks.
const ABI_VERSION: &CStr = c"v0.2.0";

/// Bytes that Envoy owns.
#[repr(C)]
#[derive(Clone, Copy)]
struct EnvoyBuffer {
    pointer: *const u8,
    length: usize,
}

impl EnvoyBuffer {
    const EMPTY: Self = Self { pointer: std::ptr::null(), length: 0 };

    /// # Safety
    /// The buffer came from Envoy, and Envoy keeps it for as long as `'a`.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.pointer.is_null() {
            return &[];
        }
        // SAFETY: by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

/// Bytes that the module lends to Envoy for one call. Envoy copies what it keeps.
#[repr(C)]
#[derive(Clone, Copy)]
struct ModuleBuffer<'a> {
    pointer: *const u8,
    length: usize,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for ModuleBuffer<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { pointer: bytes.as_ptr(), length: bytes.len(), lent: PhantomData }
    }
}

impl<'a> From<&'a str> for ModuleBuffer<'a> {
    fn from(text: &'a str) -> Self {
        text.as_bytes().into()
    }
}

/// A header that the module lends to Envoy.
#[repr(C)]
struct ModuleHeader<'a> {
    name: ModuleBuffer<'a>,
    value: ModuleBuffer<'a>,
}

type EnvoyPointer = *mut c_void;
type ModulePointer = *const c_void;

const HEADERS_OF_REQUEST: u32 = 0;
const BODY_OF_REQUEST_RECEIVED: u32 = 0;
const HEADERS_CONTINUE: u32 = 0;
const HEADERS_STOP_ITERATION: u32 = 1;
const BODY_CONTINUE: u32 = 0;
const BODY_STOP_ITERATION_AND_BUFFER: u32 = 1;
const BODY_STOP_ITERATION_NO_BUFFER: u32 = 3;
const TRAILERS_CONTINUE: u32 = 0;
const TRAILERS_STOP_ITERATION: u32 = 1;
const LOCAL_REPLY_CONTINUE: u32 = 0;
const LOG_ERROR: u32 = 4;

extern "C" {
    fn envoy_dynamic_module_callback_log(level: u32, message: ModuleBuffer<'_>);
    fn envoy_dynamic_module_callback_http_get_header(
        filter: EnvoyPointer,
        kind: u32,
        name: ModuleBuffer<'_>,
        value: *mut EnvoyBuffer,
        index: usize,
        count: *mut usize,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(
        filter: EnvoyPointer,
        kind: u32,
        name: ModuleBuffer<'_>,
        value: ModuleBuffer<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_body_size(filter: EnvoyPointer, kind: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(filter: EnvoyPointer, kind: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks(
        filter: EnvoyPointer,
        kind: u32,
        chunks: *mut EnvoyBuffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        filter: EnvoyPointer,
        namespace: ModuleBuffer<'_>,
        key: ModuleBuffer<'_>,
        value: ModuleBuffer<'_>,
    );
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_bool(
        filter: EnvoyPointer,
        namespace: ModuleBuffer<'_>,
        key: ModuleBuffer<'_>,
        value: bool,
    );
    fn envoy_dynamic_module_callback_http_clear_route_cache(filter: EnvoyPointer);
    fn envoy_dynamic_module_callback_http_get_buffer_limit(filter: EnvoyPointer) -> u64;
    fn envoy_dynamic_module_callback_http_set_buffer_limit(filter: EnvoyPointer, bytes: u64);
    fn envoy_dynamic_module_callback_http_send_response(
        filter: EnvoyPointer,
        status: u32,
        headers: *mut ModuleHeader<'_>,
        headers_count: usize,
        body: ModuleBuffer<'_>,
        details: ModuleBuffer<'_>,
    );
}

/// A stream for the time of one hook.
struct EnvoyStream {
    filter: EnvoyPointer,
}

impl Stream for EnvoyStream {
    fn request_header(&self, name: &str) -> Option<&[u8]> {
        self.request_header_values(name).0
    }

    fn request_header_values(&self, name: &str) -> (Option<&[u8]>, usize) {
        let (mut value, mut count) = (EnvoyBuffer::EMPTY, 0);
        // SAFETY: `filter` is valid during a hook; Envoy writes to both places before it returns, whatever it returns.
        // Only `&mut self` changes headers, so the value outlives the borrow.
        unsafe {
            let found = envoy_dynamic_module_callback_http_get_header(
                self.filter,
                HEADERS_OF_REQUEST,
                name.into(),
                &mut value,
                0,
                &mut count,
            );
            (found.then(|| value.bytes()), count)
        }
    }

    fn set_request_header(&mut self, name: &str, value: &[u8]) {
        // SAFETY: `filter` is valid during a hook, and Envoy copies the bytes. It returns false only where there are no
        // headers any more, and then nothing is left to decide.
        unsafe {
            envoy_dynamic_module_callback_http_set_header(self.filter, HEADERS_OF_REQUEST, name.into(), value.into())
        };
    }

    fn clear_route_cache(&mut self) {
        // SAFETY: `filter` is valid during a hook.
        unsafe { envoy_dynamic_module_callback_http_clear_route_cache(self.filter) }
    }

    fn raise_buffer_limit(&mut self, bytes: u64) {
        // SAFETY: `filter` is valid during a hook.
        unsafe {
            let limit = envoy_dynamic_module_callback_http_get_buffer_limit(self.filter);
            // Envoy's 0 stands for no limit.
            if limit != 0 && limit < bytes {
                envoy_dynamic_module_callback_http_set_buffer_limit(self.filter, bytes);
            }
        }
    }

    fn received_bytes(&self) -> u64 {
        // SAFETY: `filter` is valid during a hook.
        unsafe { envoy_dynamic_module_callback_http_get_body_size(self.filter, BODY_OF_REQUEST_RECEIVED) as u64 }
    }

    fn for_each_received(&self, read: &mut dyn FnMut(&[u8])) {
        const USUAL: usize = 16;
        let mut usual = [EnvoyBuffer::EMPTY; USUAL];
        let mut unusual = Vec::new();
        // SAFETY: `filter` is valid during a hook. Envoy fills in as many chunks as it has said there are; they stay
        // until the hook returns.
        unsafe {
            let count = envoy_dynamic_module_callback_http_get_body_chunks_size(self.filter, BODY_OF_REQUEST_RECEIVED);
            let chunks = if count <= USUAL {
                &mut usual[..count]
            } else {
                unusual.resize(count, EnvoyBuffer::EMPTY);
                &mut unusual[..]
            };
            let filled = count > 0
                && envoy_dynamic_module_callback_http_get_body_chunks(
                    self.filter,
                    BODY_OF_REQUEST_RECEIVED,
                    chunks.as_mut_ptr(),
                );
            if filled {
                chunks.iter().for_each(|chunk| read(chunk.bytes()));
            }
        }
    }

    fn set_metadata_bool(&mut self, key: &str, value: bool) {
        // SAFETY: `filter` is valid during a hook, and Envoy copies the texts.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_bool(
                self.filter,
                NAMESPACE.into(),
                key.into(),
                value,
            )
        }
    }

    fn set_metadata_text(&mut self, key: &str, value: &str) {
        // SAFETY: `filter` is valid during a hook, and Envoy copies the texts.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
                self.filter,
                NAMESPACE.into(),
                key.into(),
                value.into(),
            );
        }
    }

    fn reply(&mut self, reply: &Reply) {
        let mut headers = [ModuleHeader { name: "content-type".into(), value: "application/json".into() }];
        // SAFETY: `filter` is valid during a hook, and Envoy copies headers and texts.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.filter,
                reply.status,
                headers.as_mut_ptr(),
                headers.len(),
                reply.body.as_str().into(),
                reply.details.into(),
            );
        }
    }
}

fn log_error(message: &str) {
    // SAFETY: Envoy copies the text.
    unsafe { envoy_dynamic_module_callback_log(LOG_ERROR, message.into()) }
}

/// Runs a hook; `on_panic` is what Envoy hears where even the filter's own guard has failed.
fn guarded<R>(on_panic: R, hook: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or(on_panic)
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    guarded(std::ptr::null(), || {
        // Told again where Envoy loads the module again, from the same thread.
        let _ = MAIN_THREAD.set(std::thread::current().id());
        std::panic::set_hook(Box::new(|panic| log_error(&format!("gwanmun: {panic}"))));
        ABI_VERSION.as_ptr()
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _config: EnvoyPointer,
    name: EnvoyBuffer,
    json: EnvoyBuffer,
) -> ModulePointer {
    // SAFETY: both texts are of this call.
    unsafe { configured("filter", name, json, filter_config) }
}

/// Reads a configuration and lends it to Envoy. Null makes Envoy reject it; its own message does not say why.
///
/// # Safety
/// Envoy keeps both texts during this call.
unsafe fn configured<T>(
    what: &str,
    name: EnvoyBuffer,
    json: EnvoyBuffer,
    read: impl FnOnce(&[u8], &[u8]) -> Result<T, String>,
) -> ModulePointer {
    guarded(std::ptr::null(), || {
        // SAFETY: by the caller's promise.
        match read(unsafe { name.bytes() }, unsafe { json.bytes() }) {
            Ok(config) => lent(config),
            Err(why) => {
                log_error(&format!("gwanmun: {what} configuration rejected: {why}"));
                std::ptr::null()
            }
        }
    })
}

/// Lends a value to Envoy until `given_back`.
fn lent<T>(value: T) -> ModulePointer {
    Box::into_raw(Box::new(value)).cast_const().cast()
}

/// Envoy is done with a value.
///
/// # Safety
/// It is one of this type that was `lent`; Envoy gives it back once.
unsafe fn given_back<T>(value: ModulePointer) {
    // SAFETY: by the caller's promise.
    guarded((), || drop(unsafe { Box::from_raw(value.cast::<T>().cast_mut()) }));
}

fn filter_config(name: &[u8], json: &[u8]) -> Result<Arc<Config>, String> {
    if name != FILTER_NAME.as_bytes() {
        return Err(format!("unknown filter_name \"{}\"; known is {FILTER_NAME}", String::from_utf8_lossy(name)));
    }
    Config::parse(json).map(Arc::new)
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: ModulePointer) {
    // SAFETY: `config` is what `config_new` lent; Envoy gives it back once.
    unsafe { given_back::<Arc<Config>>(config) }
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: ModulePointer,
    _filter: EnvoyPointer,
) -> ModulePointer {
    guarded(std::ptr::null(), || {
        // SAFETY: `config` is what `config_new` made, and Envoy has not given it back yet.
        let config = unsafe { &*config.cast::<Arc<Config>>() };
        lent(Filter::new(Arc::clone(config)))
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(module: ModulePointer) {
    // SAFETY: `module` is what `filter_new` lent; Envoy gives it back once.
    unsafe { given_back::<Filter>(module) }
}

/// The filter of a hook.
///
/// # Safety
/// `module` is what `filter_new` made, it was not given back, and no other hook runs for this stream: Envoy calls the
/// hooks of one stream one after the other, on one thread. One exception: sending a reply calls `local_reply` and the
/// response hooks from inside a request hook, which is why those do not touch the filter while it answers.
unsafe fn filter_of<'a>(module: ModulePointer) -> &'a mut Filter {
    // SAFETY: by the caller's promise.
    unsafe { &mut *module.cast::<Filter>().cast_mut() }
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: EnvoyPointer,
    module: ModulePointer,
    end: bool,
) -> u32 {
    guarded(HEADERS_STOP_ITERATION, || {
        // SAFETY: Envoy calls one hook of a stream at a time.
        match unsafe { filter_of(module) }.on_request_headers(&mut EnvoyStream { filter }, end) {
            Flow::Continue => HEADERS_CONTINUE,
            Flow::Hold | Flow::Answered => HEADERS_STOP_ITERATION,
        }
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    filter: EnvoyPointer,
    module: ModulePointer,
    end: bool,
) -> u32 {
    guarded(BODY_STOP_ITERATION_NO_BUFFER, || {
        // SAFETY: Envoy calls one hook of a stream at a time.
        match unsafe { filter_of(module) }.on_request_body(&mut EnvoyStream { filter }, end) {
            Flow::Continue => BODY_CONTINUE,
            Flow::Hold => BODY_STOP_ITERATION_AND_BUFFER,
            Flow::Answered => BODY_STOP_ITERATION_NO_BUFFER,
        }
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    filter: EnvoyPointer,
    module: ModulePointer,
) -> u32 {
    guarded(TRAILERS_STOP_ITERATION, || {
        // SAFETY: Envoy calls one hook of a stream at a time.
        match unsafe { filter_of(module) }.on_request_trailers(&mut EnvoyStream { filter }) {
            Flow::Continue => TRAILERS_CONTINUE,
            Flow::Hold | Flow::Answered => TRAILERS_STOP_ITERATION,
        }
    })
}

// Envoy refuses a module that lacks one of the hooks below. Responses pass untouched.

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _: EnvoyPointer,
    _: ModulePointer,
    _end: bool,
) -> u32 {
    HEADERS_CONTINUE
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(_: EnvoyPointer, _: ModulePointer, _end: bool) -> u32 {
    BODY_CONTINUE
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(_: EnvoyPointer, _: ModulePointer) -> u32 {
    TRAILERS_CONTINUE
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    filter: EnvoyPointer,
    module: ModulePointer,
    _status: u32,
    details: EnvoyBuffer,
    _reset_imminent: bool,
) -> u32 {
    guarded(LOCAL_REPLY_CONTINUE, || {
        // SAFETY: Envoy keeps the text during this call. The module's own answers, for which this hook is called from
        // inside another one, are told from Envoy's before the filter is touched. Where there is none (`filter_new` has
        // failed) Envoy answers too.
        unsafe {
            if !module.is_null() && !details.bytes().starts_with(OWN_DETAILS.as_bytes()) {
                filter_of(module).on_local_reply(&mut EnvoyStream { filter });
            }
        }
        LOCAL_REPLY_CONTINUE
    })
}

/// Routes configure nothing. Envoy takes null for a refusal, which is right for a route that tries.
#[no_mangle]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: EnvoyBuffer,
    _config: EnvoyBuffer,
) -> ModulePointer {
    guarded((), || log_error("gwanmun: the filter has no configuration per route"));
    std::ptr::null()
}

// The arguments from the third on: an id, then pointers with counts, an end-of-stream flag or a reason.
ignore! {
    envoy_dynamic_module_on_http_filter_stream_complete(EnvoyPointer, ModulePointer);
    envoy_dynamic_module_on_http_filter_per_route_config_destroy(ModulePointer);
    envoy_dynamic_module_on_http_filter_scheduled(EnvoyPointer, ModulePointer, u64);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(EnvoyPointer, ModulePointer);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(EnvoyPointer, ModulePointer);
    envoy_dynamic_module_on_http_filter_http_callout_done(
        EnvoyPointer, ModulePointer, u64, u32, EnvoyPointer, usize, EnvoyPointer, usize
    );
    envoy_dynamic_module_on_http_filter_http_stream_headers(EnvoyPointer, ModulePointer, u64, EnvoyPointer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(EnvoyPointer, ModulePointer, u64, EnvoyPointer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(EnvoyPointer, ModulePointer, u64, EnvoyPointer, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(EnvoyPointer, ModulePointer, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(EnvoyPointer, ModulePointer, u64, u32);
}
