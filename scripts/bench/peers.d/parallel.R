# SPDX-License-Identifier: MIT
# Rscript parallel.R WORK N: prints seconds. A fork cluster of two; lists are
# vectors and go in one piece to each worker, as R's users do it.
library(parallel)
args <- commandArgs(TRUE)
work <- args[1]
n <- as.integer(args[2])

cluster <- makeForkCluster(2)
invisible(clusterCall(cluster, function() 1))
echoing <- function(size) {
  text <- strrep("x", size)
  function() for (i in 1:n) {
    stopifnot(nchar(clusterCall(cluster[1], identity, text)[[1]]) == size)
  }
}
run <- switch(work,
  start = NULL,
  lone.free = function() for (i in 1:n) clusterCall(cluster[1], function() NULL),
  gather = function() clusterApplyLB(cluster, 1:n, function(i) NULL),
  map = {
    items <- as.numeric(sample.int(1000000, n, replace = TRUE))
    function() {
      parts <- split(items, rep(1:2, each = (n + 1) %/% 2, length.out = n))
      unlist(clusterApply(cluster, parts, function(x) x * x))
    }
  },
  doubles = {
    vector <- runif(n)
    function() clusterCall(cluster[1], identity, vector)
  },
  echo.1m = echoing(2^20),
  echo.64m = echoing(2^26))
if (is.null(run)) {
  cat("1\n")
} else {
  start <- Sys.time()
  run()
  cat(as.numeric(Sys.time() - start, units = "secs"), "\n")
}
stopCluster(cluster)
