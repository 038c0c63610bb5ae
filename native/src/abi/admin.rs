//! A page of Envoy's admin interface that has what `count` has counted, and which backends there are to count.

use super::{guarded, EnvoyBuffer, EnvoyPointer, ModuleBuffer, ModulePointer};
use crate::count::Registry;
use std::ffi::c_void;

/// Where the counts are.
const PAGE: &str = "/gwanmun/metrics";
const OK: u32 = 200;
const GONE: u32 = 500;

extern "C" {
    fn envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(config: EnvoyPointer);
    fn envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
        config: EnvoyPointer,
        path: ModuleBuffer<'_>,
        help: ModuleBuffer<'_>,
        removable: bool,
        mutates: bool,
    ) -> bool;
    fn envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(
        config: EnvoyPointer,
        body: ModuleBuffer<'_>,
    );
    fn envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(config: EnvoyPointer) -> bool;
}

/// There is nothing to keep but Envoy's own pointer.
#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_config_new(
    config: EnvoyPointer,
    _name: EnvoyBuffer,
    _json: EnvoyBuffer,
) -> ModulePointer {
    // SAFETY: `config` is valid. Until it hears this, Envoy does not open its listeners.
    unsafe { envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(config) };
    config.cast_const()
}

#[no_mangle]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_new(
    config: ModulePointer,
    _extension: EnvoyPointer,
) -> ModulePointer {
    config
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_server_initialized(
    _extension: EnvoyPointer,
    module: ModulePointer,
) {
    guarded((), || {
        let config = module.cast_mut();
        // SAFETY: `config` is Envoy's own pointer of `config_new`, which outlives its extension. Envoy copies the texts.
        let follows = unsafe {
            envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
                config,
                PAGE.into(),
                "requests by backend, for Prometheus".into(),
                true,
                false,
            );
            envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(config)
        };
        if follows {
            Registry::global().follow();
        }
    });
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_admin_request(
    config: EnvoyPointer,
    _module: ModulePointer,
    _method: EnvoyBuffer,
    _path: EnvoyBuffer,
    _body: EnvoyBuffer,
) -> u32 {
    guarded(GONE, || {
        let text = Registry::global().text();
        // SAFETY: Envoy copies the text.
        unsafe { envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(config, text.as_str().into()) };
        OK
    })
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(
    _config: EnvoyPointer,
    _module: ModulePointer,
    name: EnvoyBuffer,
) {
    // SAFETY: Envoy keeps the name during this call.
    guarded((), || Registry::global().added(unsafe { name.bytes() }));
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_cluster_removal(
    _config: EnvoyPointer,
    _module: ModulePointer,
    name: EnvoyBuffer,
) {
    // SAFETY: Envoy keeps the name during this call.
    guarded((), || Registry::global().removed(unsafe { name.bytes() }));
}

/// Envoy waits with its end until it has been told that the module is ready for it.
#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_bootstrap_extension_shutdown(
    _extension: EnvoyPointer,
    _module: ModulePointer,
    ready: extern "C" fn(*mut c_void),
    context: *mut c_void,
) {
    ready(context);
}

// Envoy refuses a module that lacks one of the hooks below.
ignore! {
    envoy_dynamic_module_on_bootstrap_extension_config_destroy(ModulePointer);
    envoy_dynamic_module_on_bootstrap_extension_destroy(ModulePointer);
    envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(EnvoyPointer, ModulePointer);
    envoy_dynamic_module_on_bootstrap_extension_drain_started(EnvoyPointer, ModulePointer);
    envoy_dynamic_module_on_bootstrap_extension_config_scheduled(EnvoyPointer, ModulePointer, u64);
    envoy_dynamic_module_on_bootstrap_extension_timer_fired(EnvoyPointer, ModulePointer, EnvoyPointer);
    envoy_dynamic_module_on_bootstrap_extension_file_changed(EnvoyPointer, ModulePointer, EnvoyBuffer, u32);
    envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
        EnvoyPointer, ModulePointer, u64, u32, EnvoyPointer, usize, EnvoyPointer, usize
    );
    envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update(EnvoyPointer, ModulePointer, EnvoyBuffer);
    envoy_dynamic_module_on_bootstrap_extension_listener_removal(EnvoyPointer, ModulePointer, EnvoyBuffer);
}
