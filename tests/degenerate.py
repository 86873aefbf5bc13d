"""Answers as models go wrong: the fault's name and the text. `…|cut` met the token limit."""

from __future__ import annotations

COT = (
    "The user wants to change the colour of the car in the centre from red to a deep metallic "
    "blue. The paint shows soft reflections of the street and the sky, and the shape of the body, "
    "the wheels and the number plate do not change. The driver behind the windscreen keeps her "
    "short brown hair, calm expression and grey coat. The wet asphalt, the shop windows and the "
    "two cyclists on the right stay exactly where they are. The framing remains a wide "
    "photographic street shot with overcast daylight and natural grain."
)

_LONG = COT + (
    " The sky above the roofs is pale, and a thin line of clouds runs across it from one side. A "
    "green awning hangs over the entrance of the bakery, whose sign is painted in white letters, "
    "and an old bicycle leans against the wall beneath. On the pavement a dog waits for its owner "
    "next to a lamp post, while further back a tram turns slowly around the corner towards the "
    "river. Every person in the scene wears winter clothes in muted tones. Leaves lie along the "
    "kerb, some of them yellow and some brown, and a puddle mirrors part of the nearest facade."
)

_OTHER = (
    "Swap every umbrella for a parasol with broad stripes; let snow cover the steps of the "
    "fountain and icicles hang down from its bowl; paint all shutters turquoise, put a lantern "
    "beside each door and light it; give the baker an apron that is dusted with flour; turn the "
    "tram into a horse-drawn carriage with two passengers under woollen blankets."
)

CAPTION_FAULTS = [
    ("empty", ""),
    ("empty", "  \n\t "),
    ("empty", "<|im_end|>"),
    ("empty", "\u200b\u200b"),
    ("empty", '""'),
    ("empty", "```\n```"),
    ("empty", ".,;"),
    ("empty", "–"),
    ("repeated character", "!" * 512 + "|cut"),
    ("repeated character", "! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !"),
    ("repeated character", "Add a hat" + "." * 60),
    ("repeated character", "00000000000000000000"),
    ("repeated character", "..."),
    ("repeated character", "\ufffd" * 40),
    ("repeated character", "Add a haaaaaaaaaaaaaaaaaaaaaaat"),
    ("repeated character", "的的的的的的的的的的的的的的的"),
    ("loop", "the the the the the the the the"),
    ("loop", "Add a red hat, add a red hat, add a red hat, add a red hat, add a red|cut"),
    ("loop", "Remove the tree on the left. " * 12 + "|cut"),
    (
        "loop",
        "Replace the sky with a sunset over the sea. Replace the sky with a sunset over the sea.",
    ),
    ("loop", "hahahahahahahahahahahahaha"),
    (
        "loop",
        "change the colour to red and blue and red and blue and red and blue and red and blue",
    ),
    ("loop", "1. Add a hat. 2. Add a hat. 3. Add a hat. 4. Add a hat. 5. Add a hat."),
    ("loop", "Make it bigger and bigger and bigger and bigger and bigger and bigger"),
    ("loop", "addCriterion" * 8),
    (
        "loop",
        " ".join(f"Add a {c} hat to the man on the left;" for c in 10 * ["red", "blue", "tan"]),
    ),
    ("special token", "Add a <|image_pad|> hat to the man."),
    ("special token", "Add a hat.<|im_end|>\n<|im_start|>user\nThanks"),
    ("special token", "<|im_start|>assistant\nAdd a hat.<|im_end|>"),
    ("special token", "Add a hat to the man.</s><s>Add another one to the woman."),
    ("special token", "assistant\nAdd a hat to the man."),
    ("special token", "Add a hat to the man.\nuser\nWhat else changed?"),
    ("special token", "ASSISTANT: Add a hat to the man."),
    ("special token", "[INST] Add a hat [/INST] to the man."),
    ("special token", "Add a hat <|vision_st to the man."),
    ("special token", "Add a h\ufffdt to the man on the left."),
    ("special token", "Remove <0x0A> the tree."),
    ("cut", "Change the colour of the car in the centre from red to a deep|cut"),
    ("cut", "Add|cut"),
    ("cut", "|cut"),
    ("cut", "\n\u200b|cut"),
    ("refusal", "I'm sorry, but I can't help with identifying people in images."),
    ("refusal", "I’m sorry, I cannot assist with that request."),
    ("refusal", "Sorry, this request is not something that can be answered."),
    ("refusal", "As an AI language model, no images are accessible to me."),
    ("refusal", "I don't see any images in your message. Please upload both images."),
    ("refusal", "I am unable to compare the pictures."),
    ("refusal", "Unfortunately, the second picture could not be opened."),
    ("refusal", "Please provide the two images so that the edit can be described."),
    ("refusal", "No images were provided with the request."),
    ("meta talk", "Here is the edit instruction: Add a hat to the man."),
    ("meta talk", "Here's how to get there: remove the tree on the left."),
    ("meta talk", "Sure! Add a hat to the man on the left."),
    ("meta talk", "Certainly, remove the tree in the background."),
    ("meta talk", "Of course. Change the car to blue."),
    ("meta talk", "**Edit instruction:** Add a hat to the man."),
    ("meta talk", "Instruction: Add a hat to the man."),
    ("meta talk", "The main difference between the two images is a red hat on the man."),
    ("meta talk", "Comparing the two images, a hat has been added to the man."),
    ("meta talk", "Based on the provided images, the hat was added."),
    ("meta talk", "Okay, let me compare. The man has a hat."),
    ("meta talk", "Let me think. There is a hat in one image."),
    ("meta talk", "Add a hat to the man. Let me know if you need anything else!"),
    ("meta talk", "Add a red hat to the man. (Note: the background also differs slightly.)"),
    ("meta talk", "I see a man with a hat and a man without one."),
    ("language", "给左边的男人加一顶红色的帽子。"),
    ("language", "Добавьте красную шляпу мужчине слева."),
    ("language", "左の男性に赤い帽子をかぶせてください。"),
    ("language", "왼쪽 남자에게 빨간 모자를 씌우세요."),
    ("language", "أضف قبعة حمراء إلى الرجل على اليسار."),
    ("language", "Füge dem Mann auf der linken Seite einen roten Hut hinzu."),
    ("language", "Ajoutez un chapeau rouge à l'homme sur la gauche du tableau."),
    ("language", "Añade un sombrero rojo al hombre de la izquierda."),
    ("language", "Aggiungi un cappello rosso sulla testa della donna."),
    ("language", "Adicione um chapéu vermelho em cima da cabeça do homem."),
    ("language", "Thêm một chiếc mũ đỏ cho người đàn ông bên trái."),
    ("language", "Add a red 帽子 to the man on the left."),
    ("markdown", "# Edit\nAdd a hat to the man."),
    ("markdown", "- Add a hat to the man\n- Remove the tree on the left"),
    ("markdown", "1. Add a hat to the man\n2. Remove the tree on the left"),
    ("markdown", "Add a **red hat** to the man on the left."),
    ("markdown", "Add a hat.\n\n```json\n{}\n```"),
    ("markdown", "| what | where |\n|---|---|\n| hat | left |"),
    ("markdown", "Add a `red` hat to the man on the left."),
    ("markdown", "Add a hat,<br>then remove the tree."),
    ("length", "Hat"),
    ("length", f"{_LONG} {_OTHER} {_OTHER.swapcase()[::-1]}"),
    ("meta talk", "The first image shows a man, the second image shows a man with a hat."),
    ("meta talk", "In the second image, a hat was added to the man."),
    ("meta talk", "It seems that a hat was added to the man."),
    ("markdown", '{"caption": "Add a hat"}'),
    ("special token", "<ref>the man</ref><box>(12,33),(44,55)</box> gets a hat."),
]

COT_FAULTS = [
    ("opening", COT.replace("The user wants to c", "C")),
    ("opening", COT.replace("The user wants to", "A user would like to")),
    ("opening", COT.replace("The user wants to", "In this picture, the user wants to")),
    ("opening", "no change"),
    ("length", "The user wants to add a hat."),
    ("length", " ".join(COT.split()[:30]) + "."),
    ("length", _LONG),
    ("cut", COT[:300] + "|cut"),
    ("meta talk", "Here is the prompt:\n\n" + COT),
    ("meta talk", COT + " (92 words)"),
    ("meta talk", COT + "\n\nWord count: 92"),
    ("meta talk", COT + " This prompt captures every detail that matters."),
    ("meta talk", "Prompt: " + COT),
    ("refusal", "The user wants to change the car, but I cannot describe the driver."),
    ("markdown", COT.replace("deep metallic blue", "**deep metallic blue**")),
    ("markdown", "### Prompt\n" + COT),
    ("loop", COT + " " + COT),
    ("loop", COT + " The sky stays grey." * 8),
    ("special token", COT.replace(" The wet", "<|endoftext|> The wet")),
    ("language", COT.replace("calm expression", "平静的表情")),
    (
        "language",
        "The user wants to die Farbe des Autos von Rot zu Blau ändern, das Auto steht auf "
        "der Straße und der Fahrer ist nicht zu sehen, der Himmel wird nicht verändert.",
    ),
]

# Good answers that look a little like bad ones.
GOOD_CAPTIONS = [
    'Change the sign from "出口" to "Exit".',
    'Replace the text "Sorry, we\'re closed" with "Here is the menu".',
    "Replace the text 'I can't' on the shirt with 'I will'.",
    "Change the café's awning from red to green and add a jalapeño on the crêpe.",
    "Turn the man's hair blond; remove the tree on the left; add a very, very large moon on top.",
    "Blur background; brighten face; remove logo; sharpen trees; darken sky.",
    "Remove the van de Velde poster from the wall.",
    'Add a line of text reading "AAAAAAAAAAAAH!!!!!!!!!!!!!!!!" above the cat.',
    'Change the licence plate from "B-AB 1234" to "M-XY 9999".',
    "Add three white stars * in the top left corner.",
    "Rotate the second picture on the wall by 90°.",
    "Make the woman look at the camera; close her mouth; tilt her head about 15° to the left.",
    "Convert the photo to black and white.",
    'Add a "NO CHANGE" sign on the vending machine.',
    "Change the number on the jersey from 10 to 23.",
    "Replace the image on the left half of the screen with a prompt: a blinking cursor on black.",
    "Remove the caption at the bottom of the picture.",
    "Add a user icon in the top right corner of the screen.",
    "Change the price tag from 3.50 € to 4.20 €.",
    "Move the small red circle from the top left to the bottom right.",
    "Turn the cat into a dog, keep the user's hand in the frame.",
    "Replace the house number 1000000000 with 2.",
    "Replace the el train with a tram in the background on the left.",
    "Zoom out slightly",
    "Add sunglasses",
    "Add a note: a yellow paper stuck to the fridge.",
    "Great white shark is removed from the water; add a boat.",
    "Sure-footed goat is moved to the right.",
    "Ok hand sign is replaced by a fist.",
    "The final answer on the blackboard changes from 4 to 5.",
    "The key is replaced with a coin.",
    "The main change: the roof turns from grey to red.",
    "Change the title to “Das Leben der Anderen” and the subtitle to “Ein Film von Florian”.",
    "Replace the word SORRY in the sand with HELLO.",
    "Add the Greek letter π to the blackboard.",
    "Make the sky darker, the grass darker, the trees darker, the house darker, the road darker.",
    "To the left of the man, add a dog",
    'Here lies text on the tombstone: change it to "John".',
    "Upon the table, put a vase of flowers.",
    "Turn on the lamp on the left; turn off the lamp on the right; turn on the lamp in the centre.",
]
