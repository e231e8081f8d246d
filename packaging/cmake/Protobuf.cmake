# bpfgrant_add_proto_library(<target> [GRPC]
#                            PROTOS <file.proto>...
#                            IMPORT_DIR <folder>
#                            [DEPENDS <proto library>...])
#
# Generates the C++ of the given files (and their gRPC services, with GRPC) and
# builds it into the static library <target>. Protos are named, imported and
# included by their path below IMPORT_DIR: with IMPORT_DIR the folder above a/,
# a/b.proto becomes #include "a/b.pb.h". DEPENDS names the proto libraries whose
# files these import.
#
# Generated code is compiled without warnings: it is not ours to fix. Also
# defines bpfgrant::grpc (gRPC for C++) and bpfgrant::grpc_reflection.
include_guard(GLOBAL)

find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_program(BPFGRANT_GRPC_PLUGIN grpc_cpp_plugin
  DOC "protoc's plugin for gRPC's C++")
mark_as_advanced(BPFGRANT_GRPC_PLUGIN)
if(NOT Protobuf_PROTOC_EXECUTABLE OR NOT BPFGRANT_GRPC_PLUGIN)
  message(FATAL_ERROR
    "protoc or grpc_cpp_plugin is missing. Run: packaging/dependencies/install")
endif()

# gRPC by its files. Its pkg-config file names some sixty libraries of abseil's,
# which takes ten seconds to ask for, and each would be opened at every start;
# its CMake package wants more -dev packages than it uses. Debian's libgrpc++.so
# brings its own; what else a target calls itself (absl::status and so on), it
# links itself.
find_path(BPFGRANT_GRPC_INCLUDE_DIR grpcpp/version_info.h REQUIRED)
foreach(library IN ITEMS grpc++ grpc gpr grpc++_reflection)
  string(MAKE_C_IDENTIFIER "${library}" id)
  find_library(BPFGRANT_LIBRARY_${id} ${library} REQUIRED)
  mark_as_advanced(BPFGRANT_LIBRARY_${id})
endforeach()
mark_as_advanced(BPFGRANT_GRPC_INCLUDE_DIR)
file(STRINGS "${BPFGRANT_GRPC_INCLUDE_DIR}/grpcpp/version_info.h"
  _grpc_version REGEX "GRPC_CPP_VERSION_STRING")
string(REGEX MATCH "[0-9]+\\.[0-9]+[0-9.]*" _grpc_version "${_grpc_version}")
if(_grpc_version VERSION_LESS 1.51)
  message(FATAL_ERROR
    "gRPC 1.51 or later is needed; this is '${_grpc_version}'.")
endif()
message(STATUS "gRPC ${_grpc_version}: ${BPFGRANT_LIBRARY_grpc__}")

if(NOT TARGET bpfgrant::grpc)
  find_package(absl CONFIG REQUIRED)
  add_library(bpfgrant::grpc INTERFACE IMPORTED GLOBAL)
  # The four of abseil that gRPC's headers make callers call inline.
  target_link_libraries(bpfgrant::grpc INTERFACE
    "${BPFGRANT_LIBRARY_grpc__}" "${BPFGRANT_LIBRARY_grpc}"
    "${BPFGRANT_LIBRARY_gpr}" absl::status absl::strings absl::synchronization
    absl::time protobuf::libprotobuf Threads::Threads)
  add_library(bpfgrant::grpc_reflection INTERFACE IMPORTED GLOBAL)
  # Registers itself from a static initialiser, so nothing refers to it and a
  # linker that drops unused libraries would drop it.
  target_link_libraries(bpfgrant::grpc_reflection INTERFACE
    -Wl,--push-state,--no-as-needed "${BPFGRANT_LIBRARY_grpc___reflection}"
    -Wl,--pop-state bpfgrant::grpc)
endif()

function(bpfgrant_add_proto_library target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "GRPC" "IMPORT_DIR" "PROTOS;DEPENDS")
  if(NOT arg_PROTOS OR NOT arg_IMPORT_DIR OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR
      "bpfgrant_add_proto_library(${target}): PROTOS and IMPORT_DIR are needed, "
      "GRPC and DEPENDS may follow; not understood: "
      "'${arg_UNPARSED_ARGUMENTS}'.")
  endif()
  cmake_path(ABSOLUTE_PATH arg_IMPORT_DIR NORMALIZE)
  # One root for all: a proto library's headers are found by those that import
  # it, and protoc's imports are seen as one tree.
  set(generated "${CMAKE_BINARY_DIR}/generated")
  file(MAKE_DIRECTORY "${generated}")

  set(sources)
  foreach(proto IN LISTS arg_PROTOS)
    cmake_path(ABSOLUTE_PATH proto NORMALIZE)
    cmake_path(IS_PREFIX arg_IMPORT_DIR "${proto}" inside)
    if(NOT inside)
      message(FATAL_ERROR
        "bpfgrant_add_proto_library(${target}): ${proto} is not below "
        "${arg_IMPORT_DIR}.")
    endif()
    cmake_path(RELATIVE_PATH proto BASE_DIRECTORY "${arg_IMPORT_DIR}"
      OUTPUT_VARIABLE stem)
    string(REGEX REPLACE "\\.proto$" "" stem "${stem}")

    set(outputs "${generated}/${stem}.pb.cc" "${generated}/${stem}.pb.h")
    set(grpc_arguments)
    if(arg_GRPC)
      # In front: protoc's depfile sorts its outputs, and ninja takes a depfile
      # that does not begin with the first output for a broken one.
      list(PREPEND outputs
        "${generated}/${stem}.grpc.pb.cc" "${generated}/${stem}.grpc.pb.h")
      set(grpc_arguments "--plugin=protoc-gen-grpc=${BPFGRANT_GRPC_PLUGIN}"
        "--grpc_out=${generated}")
    endif()
    # protoc tells its imports to the build, so that changing one regenerates
    # all that import it.
    set(depfile "${generated}/${stem}.pb.d")
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND "${Protobuf_PROTOC_EXECUTABLE}" "--proto_path=${arg_IMPORT_DIR}"
        "--cpp_out=${generated}" ${grpc_arguments}
        "--dependency_out=${depfile}" "${proto}"
      DEPENDS "${proto}" "${Protobuf_PROTOC_EXECUTABLE}"
        "${BPFGRANT_GRPC_PLUGIN}"
      DEPFILE "${depfile}"
      COMMENT "protoc ${stem}.proto"
      VERBATIM)
    list(APPEND sources ${outputs})
  endforeach()

  add_library(${target} STATIC ${sources})
  # Callers get the generated headers as system headers: no warnings from them.
  target_include_directories(${target} SYSTEM PUBLIC
    "$<BUILD_INTERFACE:${generated}>")
  target_compile_options(${target} PRIVATE -w)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_CLANG_TIDY "" CXX_CPPCHECK "" CXX_INCLUDE_WHAT_YOU_USE "")
  target_link_libraries(${target} PUBLIC
    ${arg_DEPENDS} protobuf::libprotobuf Threads::Threads)
  if(arg_GRPC)
    target_link_libraries(${target} PUBLIC bpfgrant::grpc)
  endif()
  if(arg_DEPENDS)
    # Their headers must be there before these compile.
    add_dependencies(${target} ${arg_DEPENDS})
  endif()
endfunction()
