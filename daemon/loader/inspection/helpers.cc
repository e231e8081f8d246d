#include "daemon/loader/inspection/helpers.h"

#include <linux/bpf.h>

#include "daemon/loader/helper_name.h"

namespace bpfgrant::daemon {
namespace {

struct Danger {
  uint32_t helper;
  std::string_view why;
};

constexpr Danger kDangers[] = {
    {BPF_FUNC_probe_write_user,
     "writes into the memory of whatever process it runs for"},
    {BPF_FUNC_override_return, "makes functions of the kernel fail"},
    {BPF_FUNC_send_signal, "sends signals to whatever process it runs for"},
    {BPF_FUNC_send_signal_thread,
     "sends signals to whatever thread it runs for"},
    {BPF_FUNC_probe_read, "reads any memory of the kernel or of a process"},
    {BPF_FUNC_probe_read_str, "reads any memory of the kernel or of a process"},
    {BPF_FUNC_probe_read_kernel, "reads any memory of the kernel"},
    {BPF_FUNC_probe_read_kernel_str, "reads any memory of the kernel"},
    {BPF_FUNC_probe_read_user,
     "reads the memory of whatever process it runs for"},
    {BPF_FUNC_probe_read_user_str,
     "reads the memory of whatever process it runs for"},
    {BPF_FUNC_copy_from_user,
     "reads the memory of whatever process it runs for, and can sleep"},
    {BPF_FUNC_copy_from_user_task, "reads the memory of other processes"},
    {BPF_FUNC_trace_printk,
     "writes to the machine's one trace log, for all who may read that"},
    {BPF_FUNC_trace_vprintk,
     "writes to the machine's one trace log, for all who may read that"},
    {BPF_FUNC_sys_bpf, "makes calls of bpf(2) itself"},
    {BPF_FUNC_sys_close, "closes file descriptors of its caller"},
    {BPF_FUNC_kallsyms_lookup_name, "tells addresses of the kernel"},
    {BPF_FUNC_tail_call,
     "goes on as whatever program stands in a map: what is inspected here is "
     "not all that runs"},
    {BPF_FUNC_redirect, "sends packets out of other devices"},
    {BPF_FUNC_redirect_map, "sends packets to other devices or sockets"},
    {BPF_FUNC_redirect_neigh, "sends packets out of other devices"},
    {BPF_FUNC_redirect_peer, "sends packets into other network namespaces"},
    {BPF_FUNC_clone_redirect, "sends copies of packets out of other devices"},
    {BPF_FUNC_skb_store_bytes, "changes packets"},
    {BPF_FUNC_xdp_store_bytes, "changes packets"},
    {BPF_FUNC_setsockopt, "sets options of sockets that are not the caller's"},
    {BPF_FUNC_bind, "binds sockets that are not the caller's"},
    {BPF_FUNC_sk_assign, "gives packets to sockets of its choice"},
    {BPF_FUNC_perf_event_read, "reads counters of the processor"},
    {BPF_FUNC_read_branch_records, "reads where the processor has been"},
    {BPF_FUNC_get_branch_snapshot, "reads where the processor has been"},
    {BPF_FUNC_loop, "can run for long: up to 8 million rounds a call"},
    {BPF_FUNC_timer_start, "runs on by itself, when nobody calls it"},
};

}  // namespace

HelperEffect EffectOf(uint32_t helper) {
  constexpr bool kYes = true, kNo = false, kFinds = true, kCalls = true,
                 kShows = true;
  using enum HelperEffect::Memory;
  switch (helper) {
    case BPF_FUNC_map_lookup_elem:
    case BPF_FUNC_map_lookup_percpu_elem:
      return {kNo, kNo, kRead, kFinds};
    case BPF_FUNC_sk_storage_get:
    case BPF_FUNC_task_storage_get:
    case BPF_FUNC_inode_storage_get:
    case BPF_FUNC_get_local_storage:
      return {kNo, kNo, kRead, kFinds};
    case BPF_FUNC_ringbuf_reserve:
      return {kNo, kYes, kRead, kFinds};
    case BPF_FUNC_map_update_elem:
    case BPF_FUNC_map_delete_elem:
    case BPF_FUNC_map_push_elem:
    case BPF_FUNC_sk_storage_delete:
    case BPF_FUNC_task_storage_delete:
    case BPF_FUNC_inode_storage_delete:
    case BPF_FUNC_ringbuf_output:
    case BPF_FUNC_perf_event_output:
    case BPF_FUNC_skb_output:
    case BPF_FUNC_xdp_output:
    case BPF_FUNC_get_stackid:
    case BPF_FUNC_sock_map_update:
    case BPF_FUNC_sock_hash_update:
      return {kNo, kYes, kRead};
    case BPF_FUNC_ringbuf_reserve_dynptr:
      return {kNo, kYes};
    case BPF_FUNC_map_peek_elem:
    case BPF_FUNC_ringbuf_query:
    case BPF_FUNC_tail_call:
    case BPF_FUNC_redirect_map:
    case BPF_FUNC_sk_redirect_map:
    case BPF_FUNC_msg_redirect_map:
    case BPF_FUNC_sk_redirect_hash:
    case BPF_FUNC_msg_redirect_hash:
    case BPF_FUNC_sk_select_reuseport:
    case BPF_FUNC_skb_under_cgroup:
    case BPF_FUNC_current_task_under_cgroup:
    case BPF_FUNC_perf_event_read:
    case BPF_FUNC_perf_event_read_value:
      return {kYes, kNo,
              helper == BPF_FUNC_sk_select_reuseport ? kRead : kWritten};
    case BPF_FUNC_user_ringbuf_drain:
      return {kYes, kNo, kWritten, kNo, kCalls};
    case BPF_FUNC_for_each_map_elem:
      return {kYes, kNo, kWritten, kNo, kCalls, kShows};
    case BPF_FUNC_loop:
    case BPF_FUNC_find_vma:
    case BPF_FUNC_timer_set_callback:
      return {.calls = kYes, .shows = kYes};
    case BPF_FUNC_ringbuf_submit:
    case BPF_FUNC_ringbuf_discard:
      return {kNo, kNo, kUntouched};
    case BPF_FUNC_trace_printk:
    case BPF_FUNC_csum_diff:
    case BPF_FUNC_skb_store_bytes:
    case BPF_FUNC_xdp_store_bytes:
    case BPF_FUNC_dynptr_write:
    case BPF_FUNC_seq_write:
    case BPF_FUNC_strncmp:
      return {kNo, kNo, kRead};
    case BPF_FUNC_skb_load_bytes:
    case BPF_FUNC_skb_load_bytes_relative:
    case BPF_FUNC_xdp_load_bytes:
    case BPF_FUNC_dynptr_read:
    case BPF_FUNC_get_current_comm:
    case BPF_FUNC_probe_read:
    case BPF_FUNC_probe_read_str:
    case BPF_FUNC_probe_read_kernel:
    case BPF_FUNC_probe_read_kernel_str:
    case BPF_FUNC_probe_read_user:
    case BPF_FUNC_probe_read_user_str:
    case BPF_FUNC_copy_from_user:
      return {kNo, kNo, kFilled};
    default:
      return {};
  }
}

std::string_view DangerOf(std::string_view name) {
  for (const Danger& danger : kDangers) {
    if (HelperName(danger.helper) == name) return danger.why;
  }
  return "";
}

}  // namespace bpfgrant::daemon
