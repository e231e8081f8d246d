/* Prints sizes, offsets and values of what client/bpfgrant/bpfgrant.h declares,
 * for libbpfgrant.layout: what a program has compiled into it. */
#include <stdio.h>

#include "client/bpfgrant/bpfgrant.h"

#define STRUCTURE(name) \
  printf("struct %s: %zu bytes\n", #name, sizeof(struct name))
#define FIELD(name, field)                                   \
  printf("struct %s: %s at %zu, %zu bytes\n", #name, #field, \
         offsetof(struct name, field), sizeof(((struct name*)0)->field))
#define VALUE(name) printf("%s: %d\n", #name, (int)name)

int main(void) {
  STRUCTURE(bpfgrant_error);
  FIELD(bpfgrant_error, size);
  FIELD(bpfgrant_error, reason);
  FIELD(bpfgrant_error, message);
  STRUCTURE(bpfgrant_connect_options);
  FIELD(bpfgrant_connect_options, size);
  FIELD(bpfgrant_connect_options, timeout_ms);
  FIELD(bpfgrant_connect_options, path);
  STRUCTURE(bpfgrant_session);
  FIELD(bpfgrant_session, size);
  FIELD(bpfgrant_session, uid);
  FIELD(bpfgrant_session, gid);
  FIELD(bpfgrant_session, pid);
  FIELD(bpfgrant_session, session);
  FIELD(bpfgrant_session, administrator);
  FIELD(bpfgrant_session, token);
  FIELD(bpfgrant_session, reserved);
  STRUCTURE(bpfgrant_event);
  FIELD(bpfgrant_event, size);
  FIELD(bpfgrant_event, type);
  FIELD(bpfgrant_event, grant);
  FIELD(bpfgrant_event, reason);
  FIELD(bpfgrant_event, uid);
  FIELD(bpfgrant_event, at_unix_ms);
  FIELD(bpfgrant_event, program);
  FIELD(bpfgrant_event, message);
  STRUCTURE(bpfgrant_parameter);
  FIELD(bpfgrant_parameter, name);
  FIELD(bpfgrant_parameter, type);
  FIELD(bpfgrant_parameter, length);
  FIELD(bpfgrant_parameter, bits);
  FIELD(bpfgrant_parameter, fd);
  FIELD(bpfgrant_parameter, value);
  STRUCTURE(bpfgrant_acquire_options);
  FIELD(bpfgrant_acquire_options, size);
  FIELD(bpfgrant_acquire_options, delivery);
  FIELD(bpfgrant_acquire_options, program);
  FIELD(bpfgrant_acquire_options, interface);
  FIELD(bpfgrant_acquire_options, interface_hash);
  FIELD(bpfgrant_acquire_options, handles);
  FIELD(bpfgrant_acquire_options, handle_count);
  FIELD(bpfgrant_acquire_options, parameters);
  FIELD(bpfgrant_acquire_options, parameter_count);
  FIELD(bpfgrant_acquire_options, target);
  FIELD(bpfgrant_acquire_options, ring);
  STRUCTURE(bpfgrant_handle);
  FIELD(bpfgrant_handle, size);
  FIELD(bpfgrant_handle, kind);
  FIELD(bpfgrant_handle, rights);
  FIELD(bpfgrant_handle, fd);
  FIELD(bpfgrant_handle, key_size);
  FIELD(bpfgrant_handle, value_size);
  FIELD(bpfgrant_handle, max_entries);
  FIELD(bpfgrant_handle, mappable);
  FIELD(bpfgrant_handle, name);
  FIELD(bpfgrant_handle, swappable);
  STRUCTURE(bpfgrant_program);
  FIELD(bpfgrant_program, size);
  FIELD(bpfgrant_program, available);
  FIELD(bpfgrant_program, reason);
  FIELD(bpfgrant_program, allowed);
  FIELD(bpfgrant_program, ready);
  FIELD(bpfgrant_program, grants);
  FIELD(bpfgrant_program, name);
  FIELD(bpfgrant_program, interface);
  FIELD(bpfgrant_program, description);
  STRUCTURE(bpfgrant_verdict);
  FIELD(bpfgrant_verdict, size);
  FIELD(bpfgrant_verdict, allowed);
  FIELD(bpfgrant_verdict, reason);
  FIELD(bpfgrant_verdict, available);
  FIELD(bpfgrant_verdict, quota);
  FIELD(bpfgrant_verdict, in_use);
  STRUCTURE(bpfgrant_uring_loop_options);
  FIELD(bpfgrant_uring_loop_options, size);
  FIELD(bpfgrant_uring_loop_options, where);
  FIELD(bpfgrant_uring_loop_options, program);
  FIELD(bpfgrant_uring_loop_options, interface);
  FIELD(bpfgrant_uring_loop_options, interface_hash);
  FIELD(bpfgrant_uring_loop_options, native);
  FIELD(bpfgrant_uring_loop_options, sq_entries);
  FIELD(bpfgrant_uring_loop_options, cq_entries);
  FIELD(bpfgrant_uring_loop_options, memory_bytes);
  FIELD(bpfgrant_uring_loop_options, step_budget);
  FIELD(bpfgrant_uring_loop_options, file_count);
  FIELD(bpfgrant_uring_loop_options, memory);
  FIELD(bpfgrant_uring_loop_options, memory_length);
  FIELD(bpfgrant_uring_loop_options, buffers);
  FIELD(bpfgrant_uring_loop_options, buffer_count);
  FIELD(bpfgrant_uring_loop_options, files);
  STRUCTURE(bpfgrant_stopped);
  FIELD(bpfgrant_stopped, size);
  FIELD(bpfgrant_stopped, cause);
  FIELD(bpfgrant_stopped, why);
  FIELD(bpfgrant_stopped, detail);
  VALUE(BPFGRANT_EVENT_GRANT_BEGAN);
  VALUE(BPFGRANT_EVENT_GRANT_ENDED);
  VALUE(BPFGRANT_EVENT_RELOADED);
  VALUE(BPFGRANT_EVENT_RESUMED);
  VALUE(BPFGRANT_DELIVERY_ANY);
  VALUE(BPFGRANT_DELIVERY_PROGRAM);
  VALUE(BPFGRANT_DELIVERY_ATTACH);
  VALUE(BPFGRANT_DELIVERY_RING);
  VALUE(BPFGRANT_DELIVERY_PROCESS);
  VALUE(BPFGRANT_PARAMETER_INTEGER);
  VALUE(BPFGRANT_PARAMETER_CHOICE);
  VALUE(BPFGRANT_PARAMETER_BYTES);
  VALUE(BPFGRANT_PARAMETER_PREFIX);
  VALUE(BPFGRANT_PARAMETER_FILE);
  VALUE(BPFGRANT_HOOK_FILTER);
  VALUE(BPFGRANT_HOOK_REUSEPORT);
  VALUE(BPFGRANT_HANDLE_PROGRAM);
  VALUE(BPFGRANT_HANDLE_RING_BUFFER);
  VALUE(BPFGRANT_HANDLE_ARRAY);
  VALUE(BPFGRANT_HANDLE_HASH);
  VALUE(BPFGRANT_HANDLE_SOCKET_ARRAY);
  VALUE(BPFGRANT_HANDLE_PERCPU_ARRAY);
  VALUE(BPFGRANT_HANDLE_USER_RING_BUFFER);
  VALUE(BPFGRANT_HANDLE_LPM_TRIE);
  VALUE(BPFGRANT_RIGHTS_READ);
  VALUE(BPFGRANT_RIGHTS_WRITE);
  VALUE(BPFGRANT_RIGHTS_READ_WRITE);
  VALUE(BPFGRANT_TEXT_INTERFACE_HASH);
  VALUE(BPFGRANT_TEXT_HEADER);
  VALUE(BPFGRANT_TEXT_REFUSAL);
  VALUE(BPFGRANT_TEXT_IRREVOCABLE);
  VALUE(BPFGRANT_TEXT_VARIANT);
  VALUE(BPFGRANT_LOOP_KERNEL_ONLY);
  VALUE(BPFGRANT_LOOP_KERNEL_ELSE_PROCESS);
  VALUE(BPFGRANT_LOOP_PROCESS_ONLY);
  VALUE(BPFGRANT_CAUSE_LOOP);
  VALUE(BPFGRANT_CAUSE_INTERRUPTED);
  VALUE(BPFGRANT_CAUSE_DEADLINE);
  VALUE(BPFGRANT_CAUSE_DETACHED);
  VALUE(BPFGRANT_RUN_NO_WAIT);
  VALUE(BPFGRANT_RUN_STOP_BUDGET);
  return 0;
}
