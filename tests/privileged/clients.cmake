# Tests with a daemon and unprivileged clients.
add_executable(nobody
  client/bpf.cc
  client/main.cc
  client/process.cc
  client/raw.cc
  client/raw_ring.cc
  client/requests.cc
  client/rings.cc
  client/session.cc
  client/sockets.cc)
target_link_libraries(nobody PRIVATE
  bpfgrant_client_loop bpfgrant_client_uring bpfgrant_test_client bpfgrant_test_harness
  PkgConfig::SECCOMP)
add_dependencies(nobody bpfgrant_program_headers)

add_executable(generated_stubs
  client/broker_socket.cc client/generated_stubs.cc)
target_link_libraries(generated_stubs PRIVATE
  bpfgrant_test_client bpfgrant_proto_grpc)

add_library(bpfgrant_client_harness STATIC
  client_fixture.cc
  daemon_process.cc
  nobody.cc)
target_link_libraries(bpfgrant_client_harness PUBLIC
  bpfgrant_client bpfgrant_test_harness GTest::gmock)
target_compile_definitions(bpfgrant_client_harness
  PRIVATE
    NOBODY_PATH="$<TARGET_FILE:nobody>"
    WEAKENED_PATH="$<TARGET_FILE:bpfgrantd_weakened>"
  PUBLIC DAEMON_PATH="$<TARGET_FILE:bpfgrantd>")
add_dependencies(bpfgrant_client_harness nobody bpfgrant_program_headers)

foreach(topic IN ITEMS admission rights revoke gate_reuse held lifetime startup daemon delivery
    enroll executable seccomp capability capacity watchdog)
  bpfgrant_add_test(privileged_${topic} LABEL privileged
    SOURCES ${topic}_test.cc
    LIBRARIES bpfgrant_client_harness)
endforeach()
target_compile_definitions(privileged_capability PRIVATE
  UNIT_FILE="${CMAKE_SOURCE_DIR}/systemd/bpfgrantd.service")
target_link_libraries(privileged_capability PRIVATE PkgConfig::CAP)
bpfgrant_add_test(privileged_signature LABEL privileged
  SOURCES signature_test.cc
  LIBRARIES bpfgrant_catalog bpfgrant_client_harness)

bpfgrant_add_test(privileged_unit LABEL privileged
  SOURCES cgroup_tree.cc unit_test.cc
  LIBRARIES bpfgrant_client_harness)

target_compile_definitions(privileged_enroll PRIVATE
  LATENCIES_PATH="$<TARGET_FILE:bpfgrant_latencies>")
add_dependencies(privileged_enroll bpfgrant_latencies)

bpfgrant_add_test(privileged_grpc LABEL privileged
  SOURCES grpc_test.cc
  LIBRARIES bpfgrant_client_harness bpfgrant_client_grpc)
target_compile_definitions(privileged_grpc PRIVATE
  STUBS_PATH="$<TARGET_FILE:generated_stubs>")
add_dependencies(privileged_grpc generated_stubs)

bpfgrant_add_test(privileged_broker_taken_over LABEL privileged
  SOURCES broker_taken_over_test.cc
  LIBRARIES bpfgrant_client_harness bpfgrant_loader)
target_compile_definitions(privileged_broker_taken_over PRIVATE
  CATALOG_PATH="${BPFGRANT_CATALOG_DIR}")

bpfgrant_add_test(privileged_broker_privileges LABEL privileged
  SOURCES broker_privileges_test.cc
  LIBRARIES bpfgrant_client_harness bpfgrant_broker)

bpfgrant_add_test(privileged_tun_attach LABEL privileged
  SOURCES tun_attach_test.cc
  LIBRARIES bpfgrant_client_harness bpfgrant_tun_device)
