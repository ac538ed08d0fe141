# SPDX-License-Identifier: MIT
# perl mce.pl WORK N: prints seconds. Calls go over an MCE::Channel to two
# children; many of them and lists go by MCE::Map, which cuts them into chunks.
use strict;
use warnings;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use MCE::Child;
use MCE::Channel;
use MCE::Map;

my ($work, $n) = @ARGV;

# Two children which give back what they get. Both listen to the same channel.
my ($there, $back);
sub serve {
  $there = MCE::Channel->new;
  $back = MCE::Channel->new;
  for (1 .. 2) {
    MCE::Child->create(sub {
      while (my ($value) = $there->recv) { $back->send($value) }
    });
  }
  call(1);
}
sub call { $there->send($_[0]); return $back->recv }

my $run;
if ($work eq 'lone.free') {
  serve();
  $run = sub { call(0) for 1 .. $n };
} elsif ($work =~ /^echo\.(\d+)m$/) {
  my $text = 'x' x ($1 << 20);
  serve();
  $run = sub { length(call($text)) == length($text) or die for 1 .. $n };
} elsif ($work eq 'doubles') {
  my @list = map { rand } 1 .. $n;
  serve();
  $run = sub { @{call(\@list)} == $n or die };
} elsif ($work eq 'gather') {
  MCE::Map->init(max_workers => 2, chunk_size => 1);
  my @all = mce_map { $_ } [1, 2];
  $run = sub { my @out = mce_map { undef } [1 .. $n] };
} elsif ($work eq 'map') {
  MCE::Map->init(max_workers => 2);
  my @list = map { int(rand(1000000)) } 1 .. $n;
  my @all = mce_map { $_ } [1, 2];
  $run = sub { my @out = mce_map { $_ * $_ } \@list };
} elsif ($work eq 'start') {
  serve();
  $| = 1;
  print call(1), "\n";
}

if ($run) {
  my $start = clock_gettime(CLOCK_MONOTONIC);
  $run->();
  printf "%.9f\n", clock_gettime(CLOCK_MONOTONIC) - $start;
}
$there->end if $there;
MCE::Child->wait_all;
MCE::Map->finish;
