# Defines libbpf::libbpf, a static libbpf >= 1.4, and for BPF programs the
# variable BPFGRANT_LIBBPF_INCLUDE_DIR (the folder that holds bpf/*.h).
#
# Runs packaging/dependencies/libbpf at configure time; that script says where
# it comes from. Static, because the daemon must not load another libbpf at run
# time than the one it was tested with. libelf and zlib stay dynamic: the
# distribution updates those.
include_guard(GLOBAL)

set(_libbpf_script "${CMAKE_CURRENT_LIST_DIR}/../dependencies/libbpf")
cmake_path(NORMAL_PATH _libbpf_script)

# All presets share one unpacked copy in build/deps. A build folder elsewhere
# keeps its own, so that nothing is written beside it.
cmake_path(GET CMAKE_BINARY_DIR PARENT_PATH _libbpf_parent)
if(_libbpf_parent STREQUAL "${CMAKE_SOURCE_DIR}/build")
  set(_libbpf_destination "${_libbpf_parent}/deps/libbpf")
else()
  set(_libbpf_destination "${CMAKE_BINARY_DIR}/deps/libbpf")
endif()

execute_process(
  COMMAND "${_libbpf_script}" "${_libbpf_destination}"
  OUTPUT_VARIABLE _libbpf_answer
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE _libbpf_result)
if(NOT _libbpf_result EQUAL 0 OR NOT _libbpf_answer MATCHES "^(.+) ([^ ]+)$")
  message(FATAL_ERROR
    "packaging/dependencies/libbpf found no usable libbpf; "
    "what it said is above.")
endif()
set(_libbpf_prefix "${CMAKE_MATCH_1}")
set(BPFGRANT_LIBBPF_VERSION "${CMAKE_MATCH_2}")

if(_libbpf_prefix STREQUAL "system")
  find_package(PkgConfig REQUIRED)
  pkg_get_variable(BPFGRANT_LIBBPF_INCLUDE_DIR libbpf includedir)
  pkg_get_variable(_libbpf_library_dir libbpf libdir)
else()
  set(BPFGRANT_LIBBPF_INCLUDE_DIR "${_libbpf_prefix}/usr/include")
  file(GLOB _libbpf_library_dir "${_libbpf_prefix}/usr/lib/*/libbpf.a")
  cmake_path(GET _libbpf_library_dir PARENT_PATH _libbpf_library_dir)
  # A folder removed by hand is fetched again at the next build, not missed.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${_libbpf_prefix}/.libbpf-version")
endif()
if(NOT EXISTS "${_libbpf_library_dir}/libbpf.a"
    OR NOT EXISTS "${BPFGRANT_LIBBPF_INCLUDE_DIR}/bpf/libbpf.h")
  message(FATAL_ERROR
    "libbpf ${BPFGRANT_LIBBPF_VERSION} (${_libbpf_prefix}) lacks libbpf.a or "
    "bpf/libbpf.h. Remove ${_libbpf_destination} and configure again.")
endif()

# By file name: -lelf would do as well, but fails only at the first link.
find_library(BPFGRANT_LIBELF elf REQUIRED)
find_library(BPFGRANT_ZLIB z REQUIRED)
mark_as_advanced(BPFGRANT_LIBELF BPFGRANT_ZLIB)

add_library(libbpf::libbpf STATIC IMPORTED GLOBAL)
set_target_properties(libbpf::libbpf PROPERTIES
  IMPORTED_LOCATION "${_libbpf_library_dir}/libbpf.a"
  INTERFACE_LINK_LIBRARIES "${BPFGRANT_LIBELF};${BPFGRANT_ZLIB}")
# Only when it is not the compiler's own folder: naming /usr/include again
# breaks the order in which C++'s headers find C's.
if(NOT BPFGRANT_LIBBPF_INCLUDE_DIR STREQUAL "/usr/include")
  set_target_properties(libbpf::libbpf PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${BPFGRANT_LIBBPF_INCLUDE_DIR}"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${BPFGRANT_LIBBPF_INCLUDE_DIR}")
endif()
message(STATUS "libbpf ${BPFGRANT_LIBBPF_VERSION}: ${_libbpf_prefix}")
