# Draws the panels of the dashboard: `jq -r -f picture.jq` of [{ panel, legend, result }], one for each query, where `result`
# is what Prometheus answered to it as a range. An SVG comes out.

def colours: ["#3274d9", "#e0652b", "#37872d", "#8f3bb8", "#c4162a", "#0f9b8e", "#b5860b", "#5c6670"];
def escaped: gsub("&"; "&amp;") | gsub("<"; "&lt;") | gsub(">"; "&gt;");
def round_to($digits): . * pow(10; $digits) | round / pow(10; $digits);
def said($unit):
  if $unit == "s" then (if . < 1 then "\(. * 1000 | round_to(1)) ms" else "\(round_to(1)) s" end)
  elif $unit == "ops" then "\(round_to(1))/s"
  else "\(round_to(1))" end;
def named($legend): .metric as $metric
  | ($legend | gsub("\\{\\{(?<label>[a-z_]+)\\}\\}"; $metric[.label] // ""))
  | gsub("^ +| +$"; "");
# Numbers alone: what is not told is not drawn.
def points: [.values[] | select(.[1] | test("^-?[0-9.e+-]+$")) | [.[0], (.[1] | tonumber)]];

def text($x; $y; $size; $colour): "<text x=\"\($x)\" y=\"\($y)\" font-size=\"\($size)\" fill=\"\($colour)\">\(escaped)</text>";

def tiles($width):
  to_entries | (($width - 16) / 7) as $wide | map(
    (16 + (.key % 7) * $wide - 8) as $x | (34 + (.key / 7 | floor) * 52) as $y
    | (.value.points | last | .[1]) as $is
    | "<rect x=\"\($x)\" y=\"\($y)\" width=\"\($wide - 6)\" height=\"46\" rx=\"3\" fill=\"\(if $is == 1 then "#37872d" else "#c4162a" end)\"/>"
    + (.value.name | split(" · ") as $parts
      | ($parts[0] | text($x + 8; $y + 19; 11; "#fff")) + ($parts[1] // "" | text($x + 8; $y + 35; 10; "#fff"))))
  | join("");

def graph($width; $height; $unit; $from; $to):
  .[:8] as $shown
  | ([.[].points[][1]] | max // 0 | if . == 0 then 1 else . end) as $top
  | { left: 56, top: 36, wide: ($width - 72), high: ($height - 36 - 84) } as $box
  | ([0, 0.5, 1] | map(
      ($box.top + $box.high * (1 - .)) as $y
      | "<line x1=\"\($box.left)\" y1=\"\($y)\" x2=\"\($box.left + $box.wide)\" y2=\"\($y)\" stroke=\"#e3e5e8\"/>"
      + (. * $top | said($unit) | text(6; $y + 3; 9; "#7b8087"))) | join(""))
  + ($shown | to_entries | map(
      colours[.key] as $colour
      | (.value.points | map(
          "\((.[0] - $from) / ($to - $from) * $box.wide + $box.left | round_to(1)),\($box.top + $box.high * (1 - .[1] / $top) | round_to(1))")
        | join(" ")) as $line
      | (12 + .key % 2 * ($width / 2 - 12)) as $x | ($box.top + $box.high + 22 + (.key / 2 | floor) * 14) as $y
      | "<polyline points=\"\($line)\" fill=\"none\" stroke=\"\($colour)\" stroke-width=\"1.5\"/>"
      + "<rect x=\"\($x)\" y=\"\($y - 5)\" width=\"10\" height=\"4\" fill=\"\($colour)\"/>"
      + ("\(.value.name): \(.value.most | said($unit))" | text($x + 14; $y; 9; "#3c4147"))) | join(""))
  + (if length > 8 then "and \(length - 8) more" | text($width - 70; 22; 9; "#7b8087") else "" end);

def unit: .fieldConfig.defaults.unit;

[.[].result[].values[][0]] as $times | ($times | min) as $from | ($times | max) as $to
| group_by(.panel.id) | map(
    .[0].panel as $panel | $panel.gridPos as $at
    | { x: ($at.x * 46 + 4), y: ($at.y * 32 + 4), width: ($at.w * 46 - 8), height: ($at.h * 32 - 8) } as $box
    | [.[] | .legend as $legend | .result[] | { name: named($legend), points: points } | select(.points | length > 0)
       | .most = ([.points[][1]] | max)] | sort_by(-.most, .name) as $series
    | "<g transform=\"translate(\($box.x),\($box.y))\"><rect width=\"\($box.width)\" height=\"\($box.height)\" rx=\"4\" fill=\"#fff\" stroke=\"#d5d8dc\"/>"
    + ($panel.title | text(12; 22; 13; "#24292e"))
    + ($series | if $panel.type == "stat" then tiles($box.width) else graph($box.width; $box.height; $panel | unit; $from; $to) end)
    + "</g>")
| "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1104 1952\" font-family=\"Helvetica, Arial, sans-serif\"><rect width=\"1104\" height=\"1952\" fill=\"#f4f5f7\"/>"
  + join("\n") + "</svg>"
