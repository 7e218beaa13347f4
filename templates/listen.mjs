// NODE_OPTIONS=--import=…/listen.mjs: a Node app that listens on $PORT gets launchfit's socket (fd 3) instead, answers
// on $LAUNCHFIT_HEALTH_PORT, too, and at SIGTERM finishes what it has begun, unless it handles SIGTERM itself.
// boatyard up sets it for app.exec in launchify.yml; with app.socket: false it does not.
import http from "node:http";
import net from "node:net";
import process from "node:process";

const { PORT, LISTEN_FDS, LAUNCHFIT_HEALTH_PORT } = process.env;

if (LISTEN_FDS === "1" && PORT) {
  const { listen, close } = net.Server.prototype;
  let taken = false;
  net.Server.prototype.listen = function (...args) {
    const [first] = args;
    const port = typeof first === "object" && first !== null ? first.port : first;
    if (taken || `${port}` !== PORT) return listen.apply(this, args);
    taken = true;
    // the socket is shared with the version beside this one: launchfit asks this one at a port of its own
    if (LAUNCHFIT_HEALTH_PORT) {
      const health = net.createServer((socket) => this.emit("connection", socket));
      listen.call(health, { port: Number(LAUNCHFIT_HEALTH_PORT), host: "127.0.0.1" });
      health.unref();
    }
    process.on("SIGTERM", () => {
      if (process.listenerCount("SIGTERM") === 1) finish(this, close);
    });
    const done = args.filter((each) => typeof each === "function");
    return listen.call(this, { fd: 3 }, ...done);
  };
}

/** Answer what is on its way, with `Connection: close`, and end when nobody is connected. */
function finish(server, close) {
  if (server instanceof http.Server)
    server.prependListener("request", (_, response) => response.setHeader("connection", "close"));
  // not http's close(), which cuts idle connections on which a request may be on its way
  close.call(server, () => process.exit());
  setTimeout(() => server.closeIdleConnections?.(), 1000);
}
