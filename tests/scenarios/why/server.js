// A server whose handler computes on its event loop: 200 ms of CPU time for each connection.

"use strict";
const fs = require("node:fs");
const net = require("node:net");

// The CPU time of this thread in nanoseconds, by the kernel's accounts.
function usedNs() {
  return Number(fs.readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[0]);
}

function crunch(untilNs) {
  let sum = 0;
  while (usedNs() < untilNs) {
    for (let n = 0; n < 1e6; n++) sum = (sum * 31 + n) | 0;
  }
  return sum;
}

function handleRequest(connection) {
  crunch(usedNs() + 200e6);
  connection.destroy();
}

const server = net.createServer(handleRequest);
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"));
