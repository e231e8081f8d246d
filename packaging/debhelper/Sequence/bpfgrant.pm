#!/usr/bin/perl
# Enables dh_bpfgrant in dh's sequence: Build-Depends on dh-sequence-bpfgrant, or
# dh --with=bpfgrant.
use strict;
use warnings;
use Debian::Debhelper::Dh_Lib;

insert_after('dh_install', 'dh_bpfgrant');

1;
