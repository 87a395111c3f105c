import dataclasses


def test_a_prediction_that_means_nothing_is_not_stated(report, render):
    predicted = dataclasses.replace(report.fidelity.predicted, doubt="2,000 classes")
    text = render(
        dataclasses.replace(report, accuracy=None, fidelity=dataclasses.replace(report.fidelity, predicted=predicted))
    ).text
    assert "cannot be predicted 2,000 classes; use --eval-data to measure on real images" in text
    assert "97 %" not in text


def test_agreement_is_not_called_accuracy(report, render):
    text = render(dataclasses.replace(report, fidelity=dataclasses.replace(report.fidelity, predicted=None))).text
    assert "not accuracy" in text
    assert "It is not accuracy, which is how often a network is right on real labelled images; none were given." in text
    assert "Accuracy not measured" in text
    before_words, explained, _ = text.partition("Words teacher The dense network")
    assert explained
    without = before_words.replace("not accuracy", "").replace("Accuracy not measured", "")
    assert "accuracy" not in without.lower()
