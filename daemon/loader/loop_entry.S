// The object of bpf-programs/loop_entry, in the daemon itself: what stands in
// front of every loop must not be a file that can be replaced.
        .section .rodata
        .balign 16
        .global bpfgrant_loop_entry_begin
        .global bpfgrant_loop_entry_end
bpfgrant_loop_entry_begin:
        .incbin LOOP_ENTRY_OBJECT
bpfgrant_loop_entry_end:
        .section .note.GNU-stack, "", %progbits
