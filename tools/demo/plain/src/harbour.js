const ships = ["Argo", "Beagle"];
const text = `${ships.length} ships in harbour: ${ships.join(", ")}`;
const at = process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: "127.0.0.1" };
const serve = ({ createServer }) => createServer((_, answer) => answer.end(text)).listen(at);
if (process.argv[2] === "serve") void import("node:http").then(serve);
else console.log(text);
