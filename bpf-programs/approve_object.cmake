# cmake -DOBJECT=<file.bpf.o> -DTEMPLATE=<file.manifest.in> -DOUTPUT=<folder>
#       -DNAME=<name> -P approve_object.cmake
#
# Puts the object and the manifest that names its digest into a catalog folder,
# with the modes that the loader asks for: nobody but the owner may write them.
file(SHA256 "${OBJECT}" SHA256)
file(COPY_FILE "${OBJECT}" "${OUTPUT}/${NAME}.bpf.o")
configure_file("${TEMPLATE}" "${OUTPUT}/${NAME}.manifest" @ONLY)
file(CHMOD "${OUTPUT}/${NAME}.bpf.o" "${OUTPUT}/${NAME}.manifest"
  PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
# An unchanged manifest keeps its time, which would build it again for ever.
file(TOUCH_NOCREATE "${OUTPUT}/${NAME}.manifest")
