# A port that nobody listens on, below the range that the system gives to outgoing connections.
free_port() {
  local port
  for port in $(shuf -i 15000-20900 -n 50); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
  done
}
