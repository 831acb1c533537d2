#!/usr/bin/env bash
# Make the default model anew, from folders of text to the figures of its card:
#
#     scripts/reproduce_default.sh CORPUS HELDOUT OUT [OPTION OF llmzip train]...
#
# OUT gets default.safetensors, none.safetensors and the tables of the card; what was interrupted goes on when it is
# called again. Options are those of `llmzip train` and win over the recipe's: --steps, --vocab, -T.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,/^$/s/^# \?//p' "$0" >&2; exit 2; }
corpus=$1 heldout=$2 out=$3
shift 3
scripts=$(dirname "$0")
mkdir -p "$out/trained"

python -m llmzip train "$corpus" -o "$out/trained/default.safetensors" --resume \
    --width 192 --layers 10 --hidden 768 --vocab 32768 --lanes 64 --window 128 --steps 12500 --compile "$@"

# The mixer learns from what the network was not trained on: only there is the network as sure as it will be.
python "$scripts/train_mixer.py" "$heldout" --model "$out/trained/default.safetensors" --out "$out/default.safetensors"
python "$scripts/train_mixer.py" "$heldout" --out "$out/none.safetensors"

python "$scripts/evaluate.py" "$heldout" --model "$out/default.safetensors" --limit 30000 \
    --float "$out/trained/default.train/best.pt" > "$out/quality.md"
python "$scripts/measure_memorisation.py" "$out/default.safetensors" "$corpus" --heldout "$heldout" \
    > "$out/memorisation.md"
sha256sum "$out/default.safetensors" "$out/none.safetensors"
