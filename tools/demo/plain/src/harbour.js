const ships = ["Argo", "Beagle"];
const text = `${ships.length} ships in harbour: ${ships.join(", ")}`;
const serve = ({ createServer }) => createServer((_, answer) => answer.end(text)).listen({ fd: 3 });
if (process.argv[2] === "serve") void import("node:http").then(serve);
else console.log(text);
